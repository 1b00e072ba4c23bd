// The song that is listened to: its player, and its downloads.

class Result {
  constructor(host, session, about, page) {
    Object.assign(this, { host, session, about, page, id: "", stage: "", player: null, opening: null });
    this.title = element("h2", { tabIndex: -1 });
    this.remark = element("p", { className: "notice", hidden: true });
    this.notice = element("p", { className: "notice", hidden: true });
    this.box = element("div", { className: "player" });
    this.problem = element("p", { className: "notice bad", role: "alert", hidden: true });
    this.downloads = element("div", { className: "downloads", role: "group", "aria-label": "Downloads" });
    host.append(this.title, this.remark, this.notice, this.box, this.problem, this.downloads);
    addEventListener("hashchange", () => this.fromAddress());
  }

  // Opens the song that the address names, so that a reload comes back to it.
  fromAddress() {
    const id = location.hash.slice(1);
    const song = this.session.songs.get(id);
    if (id !== this.id && song && isListenable(song)) this.open(id);
  }

  // Shows what has changed: the song that is open may have been deleted, or be complete now.
  update() {
    if (this.id && !this.session.songs.has(this.id)) this.close();
    if (this.opening) return;
    if (!this.id) this.fromAddress();
    const song = this.session.songs.get(this.id);
    if (!song && !this.opening) {
      // The first that can be listened to.
      const first = [...this.session.songs.values()].find(isListenable);
      if (first) this.open(first.id);
    } else if (this.stage === "preview" && song?.stems.length) {
      if (!this.player.mixer.isPlaying) this.open(song.id);
      else this.offerWhole(song);
    } else if (this.stage === "preview") this.show(song);
  }

  // Opens a song that somebody has chosen, and goes there: on a phone, it is far from the list.
  async listenTo(id) {
    await this.open(id);
    this.title.focus({ preventScroll: true });
    this.title.scrollIntoView({ block: "nearest" });
  }

  async open(id) {
    const opening = { id };
    this.opening = opening;
    const stage = this.session.songs.get(id).stems.length ? "song" : "preview";
    let data;
    try {
      data = await request("GET", `songs/${id}/${stage}.json`);
    } catch (error) {
      if (this.opening !== opening) return;
      this.opening = null;
      if (this.session.songs.has(id)) this.page.tell(error.message);
      return;
    }
    // A different one may have been opened meanwhile, or this one deleted.
    if (this.opening !== opening) return;
    this.opening = null;
    if (!this.session.songs.has(id)) return;
    const before = this.id === id ? this.player : null;
    // In the song, so that the whole continues where its preview was.
    const seconds = before ? before.mixer.position + before.song.start : null;
    const plays = before?.mixer.isPlaying ?? false;
    const drawn = before?.drawn;
    const focused = this.box.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    Object.assign(this, { id, stage });
    history.replaceState(null, "", `#${id}`);
    this.player?.close();
    this.box.replaceWith((this.box = element("div", { className: "player" })));
    this.host.hidden = false;
    document.body.classList.add("listening");
    this.problem.hidden = true;
    this.player = new Player(this.box, data, 0);
    this.box.player = this.player;
    if (drawn) this.player.drawn = drawn;
    if (seconds !== null) this.player.seek(seconds - data.start);
    if (plays) this.player.toggle();
    if (focused) this.box.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
    this.show(this.session.songs.get(id));
    this.page.show();
  }

  close() {
    this.player?.close();
    Object.assign(this, { id: "", stage: "", player: null });
    this.host.hidden = true;
    document.body.classList.remove("listening");
    history.replaceState(null, "", location.pathname);
  }

  show(song) {
    this.title.textContent = song.title;
    this.remark.textContent = song.remark;
    this.remark.hidden = !song.remark || this.stage === "preview";
    this.notice.hidden = this.stage !== "preview";
    const follows = isEnded(song) ? "the rest was not separated" : "the whole song follows";
    this.notice.textContent = `This is the preview, the loudest ${Math.round(this.player.song.seconds)} seconds; ${follows}.`;
    this.showDownloads(song);
  }

  // While the preview plays, it is not interrupted.
  offerWhole(song) {
    if (this.notice.querySelector("button")) return;
    this.notice.hidden = false;
    this.notice.replaceChildren("The whole song is ready. ", action("Listen to it", () => this.open(song.id)));
  }

  showDownloads(song) {
    if (this.stage === "preview") {
      this.downloads.replaceChildren();
      return;
    }
    const stem = (name) =>
      element("a", {
        className: "button",
        href: `songs/${song.id}/song/${encodeURIComponent(name)}`,
        download: "",
        "aria-label": `Download ${name}`,
        textContent: name,
      });
    this.mixButton = action("This mix", () => this.saveMix(), {
      className: "main",
      "aria-label": "Download this mix",
      title: "The stems with the volumes, mutes and solos above; of the loop alone, if it is on",
    });
    this.downloads.replaceChildren(
      element("span", { className: "caption", textContent: `Download (${song.format})` }),
      ...song.stems.map(stem),
      element("a", {
        className: "button",
        href: `songs/${song.id}/stems.zip`,
        download: "",
        "aria-label": "Download all as ZIP",
        textContent: "All as ZIP",
      }),
      this.mixButton,
      ...(this.about.shows_folders
        ? [action("Show the folder", () => this.page.act("POST", `songs/${song.id}/folder`))]
        : []),
    );
  }

  // Returns what is on, and how loud.
  get gains() {
    const lanes = this.player.lanes.filter(({ sound }) => !sound.mixture);
    const soloed = lanes.some(({ solo }) => solo);
    return Object.fromEntries(
      lanes.map(({ sound, muted, solo, volume }) => [sound.name, !muted && (solo || !soloed) ? volume : 0]),
    );
  }

  async saveMix() {
    const { looping, loop } = this.player;
    const { gains } = this;
    if (Object.values(gains).every((gain) => gain === 0)) {
      this.fail("no stem is on in this mix; turn one up first");
      return;
    }
    this.mixButton.disabled = true;
    this.problem.hidden = true;
    try {
      const seconds = looping && loop ? [loop.start, loop.end] : null;
      const { address, remark } = await request("POST", `songs/${this.id}/mix`, { gains, seconds });
      if (remark) this.fail(remark);
      save(address);
    } catch (error) {
      this.fail(error.message);
    }
    this.mixButton.disabled = false;
  }

  fail(text) {
    this.problem.textContent = text;
    this.problem.hidden = false;
  }
}
