// What is above and below the sounds of the player: its buttons, the choice of files, messages and the keys.

const METER_RANGE_DB = 60;
const METER_FALL_DB_PER_SECOND = 40;

// The bars of a meter, of its left and right channel: up at once, down slowly.
class MeterBars {
  constructor() {
    this.bars = [0, 1].map(() => element("span"));
    this.box = element("span", { className: "meter", "aria-hidden": "true" }, ...this.bars);
    this.levels = [0, 0];
  }

  get isEmpty() {
    return this.levels.every((level) => level === 0);
  }

  show(meter, elapsedSeconds) {
    const fall = (METER_FALL_DB_PER_SECOND * elapsedSeconds) / METER_RANGE_DB;
    meter.peaks().forEach((peak, channel) => {
      const level = clamp(1 + (20 * Math.log10(Math.max(peak, 1e-6))) / METER_RANGE_DB, 0, 1);
      this.levels[channel] = Math.max(level, this.levels[channel] - fall);
      this.bars[channel].style.transform = `scaleX(${this.levels[channel]})`;
      this.bars[channel].classList.toggle("full", peak >= 0.999);
    });
  }
}

// Returns a slider of a volume, which calls back with the gain; its right end leaves the sound as it is.
function volumeSlider(label, changed) {
  const slider = element("input", {
    type: "range",
    min: 0,
    max: 100,
    value: 100,
    className: "volume",
    title: "Volume",
    "aria-label": label,
    "aria-valuetext": "0.0 dB",
  });
  slider.addEventListener("input", () => {
    const gain = (slider.value / 100) ** 2;
    slider.setAttribute("aria-valuetext", decibels(gain));
    changed(gain);
  });
  return slider;
}

// Returns a button with an icon or a letter, and its key in its tip.
function button(label, key, content, act) {
  const made = element("button", { type: "button", "aria-label": label, title: `${label} (${key})` }, content);
  made.addEventListener("click", act);
  return made;
}

const group = (...children) => element("div", { className: "group" }, ...children);

// The controls of a player. They only show what it does, and tell it what to do.
class Controls {
  constructor(player) {
    this.player = player;
    this.status = element("p", { className: "status", role: "status" });
    this.loopText = element("span", { className: "loop-text" });
    this.chooser = this.makeChooser();
    this.bar = element("div", { className: "bar", role: "group", "aria-label": "Playing" });
    if (!player.hasSound) {
      this.bar.append(this.makeZooming());
      return;
    }
    this.bar.append(this.makeTransport());
    if (player.compares) this.bar.append(this.makeComparison());
    this.bar.append(this.makeLooping(), this.makeZooming(), this.makeVolume());
    this.keys = this.makeKeys();
  }

  makeTransport() {
    const { player } = this;
    this.play = button("Play", "Space", icon(ICONS.play), () => player.toggle());
    this.play.className = "play";
    this.time = element("span", { className: "time", role: "timer", "aria-label": "Time", "aria-live": "off" });
    return group(
      this.play,
      button("To the start", "Home", icon(ICONS.start), () => player.toStart()),
      this.time,
    );
  }

  // Returns what switches between the song and the sum of the stems that are on.
  makeComparison() {
    const choice = (text, compared, title) => {
      const radio = element("input", { type: "radio", name: `${this.player.group}-compared`, checked: !compared });
      radio.addEventListener("change", () => this.player.compare(compared));
      return { radio, label: element("label", { title }, radio, element("span", { textContent: text })) };
    };
    this.choices = [
      choice("Mix", false, "The stems that are on (B)"),
      choice("Song", true, "The song as it was, without the volumes and switches below (B)"),
    ];
    const box = group(...this.choices.map(({ label }) => label));
    box.classList.add("segments");
    box.setAttribute("role", "radiogroup");
    box.setAttribute("aria-label", "Compare the mix with the song");
    return box;
  }

  makeLooping() {
    const { player } = this;
    this.loop = button("Loop", "L", icon(ICONS.loop), () => player.toggleLoop());
    this.loop.setAttribute("aria-pressed", "false");
    return group(
      this.loop,
      button("Loop from here", "I", "[", () => player.setLoopEdge("start")),
      button("Loop to here", "O", "]", () => player.setLoopEdge("end")),
    );
  }

  makeZooming() {
    const { player } = this;
    const drawn = { both: "Waveform + spectrogram", waveform: "Waveform", spectrogram: "Spectrogram" };
    const options = Object.entries(drawn).map(([value, textContent]) => element("option", { value, textContent }));
    const select = element("select", { "aria-label": "What is drawn", title: "What is drawn" }, ...options);
    select.value = player.drawn;
    select.addEventListener("change", () => {
      player.drawn = select.value;
      player.redraw();
    });
    return group(
      button("Zoom out", "−", icon(ICONS.farther), () => player.zoom(2)),
      button("Whole song", "0", icon(ICONS.whole), () => player.zoom(Infinity)),
      button("Zoom in", "+", icon(ICONS.closer), () => player.zoom(0.5)),
      select,
    );
  }

  makeVolume() {
    this.meter = new MeterBars();
    const slider = volumeSlider("Volume of everything", (gain) => this.player.mixer.setMasterGain(gain));
    return group(icon(ICONS.volume), slider, this.meter.box);
  }

  // Returns what asks for the files of the sounds, hidden if there is nothing to ask for.
  makeChooser() {
    const { source } = this.player;
    this.files = element("input", { type: "file", multiple: true, accept: "audio/*" });
    this.files.addEventListener("change", () => this.player.choose(this.files.files));
    const question = element(
      "label",
      {},
      "A browser does not let a page from a disk read the files next to it. Choose ",
      element("b", { textContent: source.names.join(", ") }),
      ", or drop them here. ",
      this.files,
    );
    return element("div", { className: "chooser", hidden: source.missing.length === 0 }, question);
  }

  makeKeys() {
    const mixed = [
      ["1 … 9", "solo of a stem, mute with Shift"],
      ["B", "the mix or the song"],
    ];
    const keys = [
      ["Space", "play or pause"],
      ["← →", "1 s back or ahead, 10 s with Shift"],
      [", .", "10 ms back or ahead"],
      ["Home", "to the start"],
      ...(this.player.compares ? mixed : [["1 … 9", "listen to a sound"]]),
      ["I O", "loop from or to here"],
      ["L", "loop on or off"],
      ["Esc", "no loop"],
      ["+ − 0", "zoom"],
    ];
    const rows = keys.map(([key, text]) =>
      element("div", {}, element("dt", { textContent: key }), element("dd", { textContent: text })),
    );
    const gestures =
      "Click to seek; drag over a sound to loop a part, and its edges to change it; Ctrl and wheel, or two fingers, to " +
      "zoom; wheel sideways to move.";
    return element(
      "details",
      { className: "keys" },
      element("summary", { textContent: "Keys and gestures" }),
      element("dl", {}, ...rows),
      element("p", { textContent: gestures }),
    );
  }

  report(text) {
    this.status.textContent = text;
  }

  showTime(position, seconds) {
    if (this.time) this.time.textContent = `${clock(position)} / ${clock(seconds)}`;
  }

  showPlaying(isPlaying) {
    const label = isPlaying ? "Pause" : "Play";
    this.play.replaceChildren(icon(isPlaying ? ICONS.pause : ICONS.play));
    this.play.setAttribute("aria-label", label);
    this.play.title = `${label} (Space)`;
  }

  showCompared(compared) {
    this.choices[Number(compared)].radio.checked = true;
  }

  showLoop(loop, isOn, offset) {
    this.loop.setAttribute("aria-pressed", String(isOn));
    this.loopText.textContent = loop ? `${clock(loop.start + offset)} – ${clock(loop.end + offset)}` : "";
  }

  showMissing(missing) {
    this.chooser.hidden = missing.length === 0;
    this.report(missing.length ? `Still missing: ${missing.join(", ")}.` : "");
  }

  askForFiles() {
    this.report("The sound files come first.");
    this.files.focus();
  }
}
