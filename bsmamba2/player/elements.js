// Elements of the page, and numbers and texts in them.

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// Returns seconds as m:ss.mmm.
function clock(seconds) {
  const milliseconds = Math.round(Math.max(0, seconds) * 1000);
  const [minutes, rest] = [Math.floor(milliseconds / 60000), milliseconds % 60000];
  return `${minutes}:${(rest / 1000).toFixed(3).padStart(6, "0")}`;
}

// Returns seconds as they are read aloud.
function spokenTime(seconds) {
  const [minutes, rest] = [Math.floor(seconds / 60), (seconds % 60).toFixed(1)];
  return minutes ? `${minutes} minutes ${rest} seconds` : `${rest} seconds`;
}

const decibels = (gain) => (gain > 0 ? `${(20 * Math.log10(gain)).toFixed(1).replace("-", "−")} dB` : "silent");

// Returns the bytes of a text in base64.
function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place++) bytes[place] = text.charCodeAt(place);
  return bytes;
}

// Returns a new element with properties, attributes (names with a hyphen, and role) and children.
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

// Returns an icon from the path of its outline in a box of 24 × 24.
function icon(outline) {
  const [svg, path] = ["svg", "path"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", outline);
  svg.append(path);
  return svg;
}

const ICONS = {
  play: "M7 4v16l13-8z",
  pause: "M6 4h4v16H6zM14 4h4v16h-4z",
  start: "M5 4h3v16H5zM20 4v16L9 12z",
  loop: "M17 2l4 4-4 4V7H7a3 3 0 0 0-3 3v2H2v-2a5 5 0 0 1 5-5h10zM7 22l-4-4 4-4v3h10a3 3 0 0 0 3-3v-2h2v2a5 5 0 0 1-5 5H7z",
  closer:
    "M10 3a7 7 0 1 0 4.2 12.6l5.1 5.1 1.4-1.4-5.1-5.1A7 7 0 0 0 10 3zm0 2a5 5 0 1 1 0 10 5 5 0 0 1 0-10zM9 7v2H7v2h2v2h2v-2h2V9h-2V7z",
  farther:
    "M10 3a7 7 0 1 0 4.2 12.6l5.1 5.1 1.4-1.4-5.1-5.1A7 7 0 0 0 10 3zm0 2a5 5 0 1 1 0 10 5 5 0 0 1 0-10zM7 9v2h6V9z",
  volume: "M3 9v6h4l5 5V4L7 9zM14 8.5v7a4 4 0 0 0 0-7zM14 4v2.1a6.2 6.2 0 0 1 0 11.8V20a8.2 8.2 0 0 0 0-16z",
  whole: "M3 5h2v14H3zM19 5h2v14h-2zM9 8v3h6V8l4 4-4 4v-3H9v3l-4-4z",
};

// Returns the name of a file from its address.
function nameOf(address) {
  const name = address.split("/").at(-1);
  try {
    return decodeURIComponent(name);
  } catch {
    // Its bytes are no text.
    return name;
  }
}
