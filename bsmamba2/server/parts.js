// Parts of the page that are used in several places.

// Returns a button with a text.
function action(text, act, properties = {}) {
  const made = element("button", { type: "button", textContent: text, ...properties });
  made.addEventListener("click", act);
  return made;
}

// Returns a size as a person reads it.
function size(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
  return bytes >= 1e6 ? `${Math.round(bytes / 1e6)} MB` : `${Math.max(1, Math.round(bytes / 1e3))} kB`;
}

// Returns how long something will take, as `2:05 left`.
function timeLeft(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(rest)} left`;
}

// Asks a question in a window of its own, and returns whether it was confirmed.
function ask(title, lines, confirm) {
  return new Promise((answer) => {
    const dialog = element(
      "dialog",
      { "aria-labelledby": "question" },
      element("h2", { id: "question", textContent: title }),
      ...lines.map((textContent) => element("p", { textContent })),
    );
    const choose = (value) => () => {
      dialog.returnValue = value;
      dialog.close(value);
    };
    dialog.append(
      element(
        "div",
        { className: "actions" },
        action(confirm, choose("yes"), { className: "main" }),
        action("Cancel", choose("")),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      answer(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// Has a screen reader announce what happens.
function announce(text) {
  document.getElementById("news").textContent = text;
}

// Starts the download of an address of this server.
function save(address) {
  const link = element("a", { href: address, download: "" });
  document.body.append(link);
  link.click();
  link.remove();
}

// Returns a label with a control in it.
const labelled = (text, control) => element("label", {}, element("span", { textContent: text }), control);
