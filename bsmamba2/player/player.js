// The player of the sounds of a song. All sounds are parts of one audio graph and begin at the same instant of its clock, so they are in sync to
// the sample. Nothing is requested from anywhere but sound files next to the page.

const SHORTEST_LOOP_SECONDS = 0.02;
// Pixels that a pointer may move and still click, and within which it grips an edge of the loop.
const CLICK_PIXELS = 5;
// A page of one song up to this length decodes it before it is asked for, so that it plays at once.
const LONGEST_PRELOAD_SECONDS = 600;
const GRIP_PIXELS = 9;

// A song on the page: its controls, its sounds, and what the pointer and the keys do.
class Player {
  constructor(host, song, number) {
    Object.assign(this, {
      host,
      song,
      group: `player-${number}`,
      drawn: song.mode === "one" ? "spectrogram" : "both",
      compared: false,
      loop: null,
      looping: false,
    });
    this.mixer = new Mixer(song, () => this.stopped());
    this.source = new Source(song);
    this.view = new View(song.seconds);
    this.lanes = song.sounds.map((sound, place) => new Lane(this, sound, place));
    this.ruler = new Ruler(this);
    this.tracks = [this.ruler, ...this.lanes];
    this.controls = new Controls(this);
    this.loading = null;
    this.due = this.framing = false;
    // Ends what listens outside of the player once it is closed.
    this.closing = new AbortController();
    this.peak = Math.max(...this.lanes.map(({ waveform }) => waveform.loudest));
    this.build();
    this.listen();
    this.update();
  }

  get hasSound() {
    return this.song.sounds.every(({ sound, file }) => sound || file);
  }

  // Whether the song can be compared with the sum of its stems: then one of them is it, or they sum to it.
  get compares() {
    return this.song.mode === "mix" && this.hasSound;
  }

  build() {
    const { host, song, controls } = this;
    // There, what is shown for a loop moves nothing.
    const corner = element("div", { className: "controls" }, controls.loopText);
    const scale = element("div", { className: "lane scale" }, corner, this.ruler.box);
    host.append(controls.bar, controls.chooser, controls.status, scale, ...this.lanes.map(({ row }) => row));
    if (controls.keys) host.append(controls.keys);
    // Few are drawn higher, so that a window shows all of them.
    host.style.setProperty("--lanes", this.lanes.length);
    host.classList.add(song.mode);
    host.classList.toggle("silent", !this.hasSound);
    host.setAttribute("role", "group");
    host.setAttribute("aria-label", `Player of ${song.name}`);
  }

  listen() {
    // With one player, keys work wherever the focus is; with several, in that which has it.
    const alone = document.querySelectorAll(".player").length === 1;
    if (alone && this.hasSound && !this.source.missing.length && this.song.seconds <= LONGEST_PRELOAD_SECONDS)
      this.load();
    const { signal } = this.closing;
    (alone ? document : this.host).addEventListener("keydown", (event) => this.press(event), { signal });
    for (const track of this.tracks) new Pointer(this, track);
    const resizing = new ResizeObserver(() => this.redraw());
    resizing.observe(this.host);
    signal.addEventListener("abort", () => resizing.disconnect());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw(), { signal });
    if (this.source.missing.length) this.takeDroppedFiles();
  }

  takeDroppedFiles() {
    this.host.addEventListener("dragover", (event) => event.preventDefault());
    this.host.addEventListener("drop", (event) => {
      event.preventDefault();
      this.choose(event.dataTransfer.files);
    });
  }

  // Stops and removes it, so that a different song can take its place.
  close() {
    if (this.mixer.isPlaying) this.mixer.pause();
    this.closing.abort();
    output.close();
    this.host.replaceChildren();
  }

  async choose(files) {
    this.source.choose(files);
    const { missing } = this.source;
    this.controls.showMissing(missing);
    if (!missing.length) await this.load();
  }

  // Decodes the sounds once, and returns whether they can be played.
  load() {
    this.loading ??= (async () => {
      try {
        this.mixer.buffers = await this.source.decode();
        this.lanes.forEach(({ waveform }, place) => (waveform.buffer = this.mixer.buffers[place]));
        this.redraw();
        return true;
      } catch (error) {
        this.loading = null;
        this.controls.report(error.message);
        return false;
      }
    })();
    return this.loading;
  }

  async toggle() {
    if (this.mixer.isPlaying) {
      this.mixer.pause();
      this.stopped();
      return;
    }
    if (this.source.missing.length) {
      this.controls.askForFiles();
      return;
    }
    // At once, while the browser knows that a click or a key is the reason.
    output.open(this.song.rate).resume();
    if (!this.mixer.buffers) this.controls.report("Loading the sound …");
    if (!(await this.load()) || this.mixer.isPlaying) return;
    this.controls.report("");
    this.mixer.connect();
    this.applyGains();
    this.mixer.play();
    this.controls.showPlaying(true);
    if (this.framing) return;
    this.framing = true;
    this.shownAt = performance.now();
    requestAnimationFrame(() => this.frame());
  }

  stopped() {
    this.controls.showPlaying(false);
    this.update();
  }

  // Shows what changes while the song plays, until its meters have fallen after the end.
  frame() {
    const now = performance.now();
    const elapsedSeconds = (now - this.shownAt) / 1000;
    this.shownAt = now;
    if (this.mixer.isPlaying && !this.pointed && this.view.follow(this.mixer.position)) this.redraw();
    this.lanes.forEach(({ meter }, place) => meter.show(this.mixer.channels[place].meter, elapsedSeconds));
    this.controls.meter.show(this.mixer.master.meter, elapsedSeconds);
    this.update();
    const fallen = [this.controls, ...this.lanes].every(({ meter }) => meter.isEmpty);
    this.framing = this.mixer.isPlaying || !fallen;
    if (this.framing) requestAnimationFrame(() => this.frame());
    // A different song may have taken its place.
    if (!this.mixer.isPlaying) this.controls.showPlaying(false);
  }

  toStart() {
    this.seek(this.looping ? this.loop.start : 0);
  }

  seek(seconds) {
    this.mixer.seek(seconds);
    if (this.view.follow(this.mixer.position)) this.redraw();
    this.update();
  }

  // Sets which sounds are on, and how loud.
  applyGains() {
    const { sounds, mode } = this.song;
    const whole = sounds.some(({ mixture }) => mixture);
    const soloed = this.lanes.some(({ solo }) => solo);
    const gains = this.lanes.map((lane) => {
      if (mode === "one") return Number(lane.radio?.checked ?? false);
      if (this.compared) return Number(!whole || lane.sound.mixture);
      const on = !lane.muted && (lane.solo || !soloed) && !lane.sound.mixture;
      return on ? lane.volume : 0;
    });
    this.lanes.forEach(({ row }, place) => row.classList.toggle("off", gains[place] === 0));
    if (this.mixer.master) this.mixer.setGains(gains);
  }

  compare(compared) {
    this.compared = compared;
    this.controls.showCompared(compared);
    this.applyGains();
  }

  // Repeats a part of the song, or none.
  setLoop(start, end) {
    // Whole samples repeat without a change.
    const [low, high] = [start, end].sort((one, other) => one - other).map((edge) => this.wholeSamples(edge));
    this.loop = start === null ? null : { start: low, end: high };
    if (this.loop && this.loop.end - this.loop.start < SHORTEST_LOOP_SECONDS) this.loop = null;
    this.applyLoop(this.loop !== null);
  }

  wholeSamples(seconds) {
    return Math.round(seconds * this.song.rate) / this.song.rate;
  }

  setLoopEdge(property) {
    const edges = this.loop ?? { start: 0, end: this.song.seconds };
    const moved = { ...edges, [property]: this.mixer.position };
    if (moved.end <= moved.start)
      moved[property === "start" ? "end" : "start"] = property === "start" ? this.song.seconds : 0;
    this.setLoop(moved.start, moved.end);
  }

  // Turns the loop on or off; without a part, it is what is visible.
  toggleLoop() {
    this.loop ??= { start: this.view.from, end: this.view.to };
    this.applyLoop(!this.looping);
  }

  applyLoop(looping) {
    this.looping = looping;
    // While a part is drawn, what plays is left alone.
    if (!this.pointed) this.mixer.repeat(looping ? this.loop : null);
    this.controls.showLoop(this.loop, looping, this.song.start);
    this.host.classList.toggle("looping", looping);
    this.update();
  }

  // Plays a part that was drawn, from its start unless the song is in it.
  playLoop() {
    this.applyLoop(this.looping);
    const { position } = this.mixer;
    if (this.loop && (position < this.loop.start || position > this.loop.end)) this.seek(this.loop.start);
  }

  zoom(factor, around = clamp(this.mixer.position, this.view.from, this.view.to)) {
    if (factor === Infinity) this.view.whole();
    else this.view.zoom(factor, around);
    this.redraw();
  }

  // Draws everything in the next frame.
  redraw() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      const style = getComputedStyle(this.host);
      this.host.dataset.drawn = this.drawn;
      this.ruler.draw(this.view, style);
      for (const lane of this.lanes) lane.draw(this.view, style, this);
      this.update();
    });
  }

  update() {
    const { position } = this.mixer;
    const { start, seconds } = this.song;
    this.controls.showTime(position + start, seconds + start);
    for (const track of this.tracks) track.mark(this.view, position, this.loop);
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || !this.hasSound) return;
    const { target } = event;
    const kind = target instanceof HTMLInputElement ? target.type : target.tagName?.toLowerCase();
    if (["text", "search", "number", "textarea", "select"].includes(kind) || target.closest?.("dialog")) return;
    const arrows = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"];
    // Such controls have their own use for these keys.
    if (["range", "radio"].includes(kind) && arrows.includes(event.key)) return;
    if (["button", "summary", "radio", "checkbox", "file", "a"].includes(kind) && [" ", "Enter"].includes(event.key)) return;
    const act = this.action(event);
    if (!act) return;
    event.preventDefault();
    act();
  }

  // Returns what a key does, if anything.
  action(event) {
    const digit = /^Digit([1-9])$/.exec(event.code);
    const lane = digit && this.lanes[digit[1] - 1];
    if (lane?.radio) return () => (lane.radio.click(), lane.radio.focus());
    if (lane?.soloButton) return () => (event.shiftKey ? lane.muteButton : lane.soloButton).click();
    const step = (seconds) => () => this.seek(this.mixer.position + seconds);
    const far = event.shiftKey ? 10 : 1;
    return {
      " ": () => this.toggle(),
      k: () => this.toggle(),
      ArrowLeft: step(-far),
      ArrowRight: step(far),
      ArrowDown: step(-far),
      ArrowUp: step(far),
      PageDown: step(-10),
      PageUp: step(10),
      ",": step(-0.01),
      ".": step(0.01),
      Home: () => this.seek(0),
      End: () => this.seek(this.song.seconds),
      b: this.compares && (() => this.compare(!this.compared)),
      i: () => this.setLoopEdge("start"),
      o: () => this.setLoopEdge("end"),
      l: () => this.toggleLoop(),
      Escape: () => this.setLoop(null),
      "+": () => this.zoom(0.5),
      "=": () => this.zoom(0.5),
      "-": () => this.zoom(2),
      0: () => this.zoom(Infinity),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  }
}

// What mouse and fingers do on a track: seek, choose a part, zoom and move.
class Pointer {
  constructor(player, track) {
    Object.assign(this, { player, track, fingers: new Map(), anchor: null, dragged: false });
    const { box } = track;
    box.addEventListener("pointerdown", (event) => this.down(event));
    box.addEventListener("pointermove", (event) => this.move(event));
    box.addEventListener("pointerup", (event) => this.up(event));
    box.addEventListener("pointercancel", (event) => this.cancel(event));
    box.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  place(event) {
    const { left, width } = this.track.box.getBoundingClientRect();
    return (event.clientX - left) / width;
  }

  down(event) {
    if (event.button !== 0 || !this.player.hasSound) return;
    this.track.box.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, event);
    this.player.pointed = true;
    this.dragged = false;
    this.pressedAt = event.clientX;
    this.anchor = this.farEdge(event) ?? this.player.view.secondsAt(this.place(event));
    if (this.track === this.player.ruler) this.player.seek(this.anchor);
  }

  // Returns the opposite edge of the loop if one edge is gripped.
  farEdge(event) {
    const { loop, view } = this.player;
    if (!loop || this.track === this.player.ruler) return undefined;
    const { left, width } = this.track.box.getBoundingClientRect();
    const near = (edge) => Math.abs(event.clientX - left - view.place(edge) * width) <= GRIP_PIXELS;
    this.gripped = near(loop.start) || near(loop.end);
    return near(loop.start) ? loop.end : near(loop.end) ? loop.start : undefined;
  }

  move(event) {
    if (!this.fingers.has(event.pointerId)) return;
    if (this.fingers.size === 2) return this.pinch(event);
    this.fingers.set(event.pointerId, event);
    this.dragged ||= Math.abs(event.clientX - this.pressedAt) > CLICK_PIXELS;
    if (!this.dragged || this.pinched) return;
    const seconds = this.player.view.secondsAt(clamp(this.place(event), 0, 1));
    if (this.track === this.player.ruler) this.player.seek(seconds);
    else this.player.setLoop(this.anchor, seconds);
  }

  // Keeps the seconds below two fingers below them.
  pinch(event) {
    const before = [...this.fingers.values()].map((each) => this.place(each));
    this.fingers.set(event.pointerId, event);
    const after = [...this.fingers.values()].map((each) => this.place(each));
    const { view } = this.player;
    const distance = ([one, other]) => Math.max(0.02, Math.abs(one - other));
    const middle = ([one, other]) => (one + other) / 2;
    view.zoom(distance(before) / distance(after), view.from + middle(before) * view.span);
    view.moveTo(view.from + (middle(before) - middle(after)) * view.span);
    this.pinched = true;
    this.player.redraw();
  }

  up(event) {
    if (!this.fingers.delete(event.pointerId)) return;
    const click = !this.dragged && !this.pinched && !this.gripped;
    if (click && this.track !== this.player.ruler) this.player.seek(this.player.view.secondsAt(this.place(event)));
    const drawn = this.dragged && !this.pinched && this.track !== this.player.ruler;
    this.cancel(event);
    if (drawn) this.player.playLoop();
  }

  cancel(event) {
    this.fingers.delete(event.pointerId);
    if (this.fingers.size) return;
    this.pinched = this.gripped = this.player.pointed = false;
  }

  wheel(event) {
    const { view } = this.player;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.player.zoom(2 ** (event.deltaY / 200), view.secondsAt(this.place(event)));
      return;
    }
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (view.isWhole || !sideways || Math.abs(event.deltaY) > Math.abs(sideways)) return;
    event.preventDefault();
    view.moveTo(view.from + (sideways / this.track.box.clientWidth) * view.span);
    this.player.redraw();
  }
}
