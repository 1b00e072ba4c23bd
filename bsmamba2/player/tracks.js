// The strips of the player: the scale of time, and each sound with its controls.

// A strip of the player that has time from left to right: a canvas below the cursor and the part that is repeated.
class Track {
  constructor(player) {
    this.player = player;
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.region = element("div", { className: "region", hidden: true });
    this.cursor = element("div", { className: "cursor" });
    this.box = element("div", { className: "strip" }, this.canvas, this.region, this.cursor);
  }

  // Returns the context of the canvas and its size, at the resolution of the screen.
  prepare() {
    const { clientWidth: width, clientHeight: height } = this.box;
    const context = this.canvas.getContext("2d");
    this.canvas.width = Math.round(width * devicePixelRatio);
    this.canvas.height = Math.round(height * devicePixelRatio);
    context.scale(this.canvas.width / Math.max(1, width), this.canvas.height / Math.max(1, height));
    return { context, width, height };
  }

  mark(view, position, loop) {
    const place = this.player.hasSound ? view.place(position) : -1;
    this.cursor.style.transform = `translateX(${place * this.box.clientWidth}px)`;
    this.cursor.hidden = place < 0 || place > 1;
    this.region.hidden = !loop;
    if (!loop) return;
    const [left, right] = [loop.start, loop.end].map((edge) => clamp(view.place(edge), 0, 1) * 100);
    this.region.style.left = `${left}%`;
    this.region.style.width = `${right - left}%`;
  }
}

// The scale of time; it is also the control that a keyboard seeks with.
class Ruler extends Track {
  constructor(player) {
    super(player);
    this.box.classList.add("ruler");
    for (const [name, value] of Object.entries({
      role: "slider",
      tabindex: "0",
      "aria-label": "Position",
      "aria-valuemin": "0",
      "aria-valuemax": player.song.seconds.toFixed(3),
    }))
      this.box.setAttribute(name, value);
  }

  draw(view, style) {
    const { context, width, height } = this.prepare();
    const least = (view.span * 76) / Math.max(1, width);
    const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
    const step = steps.find((each) => each >= least) ?? steps.at(-1);
    const start = this.player.song.start;
    context.font = `12px ${style.getPropertyValue("font-family")}`;
    context.textBaseline = "top";
    const minor = step / 5;
    for (let count = Math.ceil((view.from + start) / minor); count * minor <= view.to + start; count++) {
      const seconds = count * minor;
      const pixel = view.place(seconds - start) * width;
      const major = count % 5 === 0;
      context.fillStyle = style.getPropertyValue(major ? "--muted" : "--grid");
      context.fillRect(Math.round(pixel), height - (major ? 9 : 5), 1, major ? 9 : 5);
      if (!major) continue;
      const label = clock(seconds).replace(step >= 1 ? /\..*$/ : /0$/, "");
      const wide = context.measureText(label).width;
      context.fillText(label, clamp(pixel - wide / 2, 0, width - wide), 2);
    }
  }

  mark(view, position, loop) {
    super.mark(view, position, loop);
    this.box.setAttribute("aria-valuenow", position.toFixed(3));
    this.box.setAttribute("aria-valuetext", spokenTime(position + this.player.song.start));
  }
}

// A sound in the player: its controls, and its waveform above its spectrogram.
class Lane extends Track {
  constructor(player, sound, number) {
    super(player);
    const { song } = player;
    this.sound = sound;
    this.volume = 1;
    this.muted = this.solo = false;
    this.waveform = new Waveform(sound, song.peakRate);
    this.spectrogram = new Spectrogram(sound, song, () => player.redraw());
    this.meter = new MeterBars();
    const badge = sound.badge
      ? [element("span", { className: `badge ${sound.badge[1]}`, textContent: sound.badge[0] }), " "]
      : [];
    const name = element("span", { className: "name" }, ...badge, sound.name);
    this.controls = element("div", { className: "controls" });
    if (!player.hasSound) this.controls.append(name);
    else if (song.mode === "one") this.controls.append(this.choice(name, number));
    else if (sound.mixture) this.controls.append(name, this.meter.box);
    else this.controls.append(name, this.switches(), this.fader(), this.meter.box);
    this.row = element(
      "div",
      { className: `lane ${this.colour(number)}`, role: "group", "aria-label": sound.name },
      this.controls,
      this.box,
    );
  }

  // Returns the class of its colour: of stems each has its own, of estimates all of a run have the same.
  colour(number) {
    if (this.player.song.mode === "one") return this.sound.badge?.[1] ?? "plain";
    return `s${number % 6}`;
  }

  // Returns what chooses this sound, if one is played at a time.
  choice(name, number) {
    this.radio = element("input", { type: "radio", name: this.player.group, checked: number === 0 });
    this.radio.addEventListener("change", () => this.player.applyGains());
    return element("label", { className: "choice" }, this.radio, name);
  }

  switches() {
    const toggle = (label, letter, property) => {
      const button = element("button", {
        type: "button",
        title: `${label} (${property === "solo" ? "number of the stem" : "Shift and number"})`,
        textContent: letter,
        "aria-label": `${label} ${this.sound.name}`,
        "aria-pressed": "false",
        className: property,
      });
      button.addEventListener("click", () => {
        this[property] = !this[property];
        button.setAttribute("aria-pressed", String(this[property]));
        this.player.applyGains();
      });
      return button;
    };
    [this.muteButton, this.soloButton] = [toggle("Mute", "M", "muted"), toggle("Solo", "S", "solo")];
    return element("span", { className: "switches" }, this.muteButton, this.soloButton);
  }

  fader() {
    return volumeSlider(`Volume of ${this.sound.name}`, (gain) => {
      this.volume = gain;
      this.player.applyGains();
    });
  }

  draw(view, style, { peak, drawn }) {
    const { context, width, height } = this.prepare();
    const waveHeight = Math.round(height * { both: 0.42, waveform: 1, spectrogram: 0 }[drawn]);
    const colour = getComputedStyle(this.row).getPropertyValue("--series");
    if (waveHeight) this.waveform.draw(context, view, { width, height: waveHeight }, peak, colour);
    if (waveHeight === height) return;
    context.translate(0, waveHeight);
    this.spectrogram.draw(context, view, { width, height: height - waveHeight });
    this.label(context, height - waveHeight, style);
  }

  // Writes some frequencies at the left of the spectrogram.
  label(context, height, style) {
    context.font = `10px ${style.getPropertyValue("font-family")}`;
    context.textBaseline = "middle";
    let previous = Infinity;
    for (const [name, place] of Object.entries(this.player.song.frequencies).sort(
      ([, one], [, other]) => other - one,
    )) {
      const y = place * height;
      if (previous - y < 15 || y < 7 || y > height - 7) continue;
      previous = y;
      context.fillStyle = "rgb(0 0 0 / 0.55)";
      context.fillRect(0, y - 6, context.measureText(name).width + 6, 12);
      context.fillStyle = "#fff";
      context.fillText(name, 3, y + 0.5);
    }
  }
}
