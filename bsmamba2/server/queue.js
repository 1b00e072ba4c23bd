// The songs: those that the browser still sends, and those that the server has.

// A file that is sent to the server when its turn comes.
class Upload {
  constructor(file, folder) {
    Object.assign(this, { file, folder, state: "waiting", share: 0, problem: "", sending: null });
  }

  // Sends it, and returns the song that it has become; null if it was cancelled.
  send(fields) {
    const form = new FormData();
    for (const [name, value] of Object.entries({ ...fields, folder: this.folder })) form.append(name, value);
    form.append("song", this.file, this.file.name);
    const sending = new XMLHttpRequest();
    this.sending = sending;
    this.state = "sending";
    return new Promise((done, fail) => {
      sending.upload.addEventListener("progress", ({ loaded, total }) => {
        this.share = loaded / total;
        this.changed();
      });
      sending.addEventListener("load", () => {
        const answer = parsed(sending.responseText);
        if (sending.status === 201) done(answer.songs[0]);
        else fail(new Error(answer?.error ?? `bsmamba2 has refused this (${sending.status}).`));
      });
      sending.addEventListener("error", () => fail(new Error("The connection broke off while the song was sent.")));
      sending.addEventListener("abort", () => done(null));
      sending.open("POST", "songs");
      sending.send(form);
    });
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// Returns the files of what was dropped, each with the folder that it was in; folders are searched.
async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, folder: "", listed: false }));
  const found = [];
  for (const entry of entries) found.push(...(await filesOf(entry, "")));
  return found;
}

async function filesOf(entry, folder) {
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail));
    return [{ file, folder, listed: folder !== "" }];
  }
  const inside = folder ? `${folder}/${entry.name}` : entry.name;
  const [reader, children] = [entry.createReader(), []];
  for (;;) {
    // It gives some at a time.
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) break;
    children.push(...some);
  }
  children.sort((one, other) => (one.name < other.name ? -1 : 1));
  const found = [];
  for (const child of children) if (!child.name.startsWith(".")) found.push(...(await filesOf(child, inside)));
  return found.length ? found : [{ file: null, folder: inside, listed: true }];
}

// The list of the songs.
class Queue {
  constructor(host, drop, session, about, page) {
    Object.assign(this, { host, session, about, page, uploads: [], isSending: false });
    this.list = element("ol");
    this.rows = new Map();
    this.heading = element("h2", { textContent: "Songs", tabIndex: -1 });
    this.problem = element("p", { className: "notice bad", role: "alert", hidden: true });
    this.cancelButton = action("Cancel all", () => this.cancelAll(), { hidden: true });
    host.append(element("div", { className: "heading" }, this.heading, this.cancelButton), this.list);
    this.buildDrop(drop);
    addEventListener("beforeunload", (event) => {
      if (this.uploads.some(({ state }) => state !== "failed")) event.preventDefault();
    });
  }

  buildDrop(drop) {
    // The buttons open them.
    const files = element("input", { type: "file", multiple: true, hidden: true });
    const folder = element("input", { type: "file", webkitdirectory: true, hidden: true });
    for (const input of [files, folder])
      input.addEventListener("change", () => {
        this.add([...input.files].map((file) => ({ file, folder: folderOf(file), listed: input === folder })));
        input.value = "";
      });
    drop.append(
      element("p", { className: "large", textContent: "Drop songs or folders here" }),
      element(
        "div",
        { className: "actions" },
        action("Choose songs", () => files.click(), { className: "main" }),
        action("Choose a folder", () => folder.click()),
      ),
      files,
      folder,
      this.problem,
    );
    addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dragging");
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dragging");
    });
    addEventListener("drop", async (event) => {
      event.preventDefault();
      document.body.classList.remove("dragging");
      this.add(await droppedFiles(event.dataTransfer));
    });
  }

  // Adds files. Those of a folder are its songs, as on the command line; one that was given itself may have any name.
  add(found) {
    const isSong = ({ file, listed }) =>
      file && (!listed || this.about.suffixes.some((suffix) => file.name.toLowerCase().endsWith(suffix)));
    const songs = found.filter((each) => isSong(each) && !each.file.name.startsWith("."));
    const folder = found.find(({ listed }) => listed)?.folder.split("/")[0];
    this.problem.hidden = songs.length > 0 || !found.length;
    if (!this.problem.hidden)
      this.problem.textContent = `the folder ${folder ?? ""} contains no audio file; give one that does, or give the files`;
    for (const { file, folder: inside } of songs) {
      const upload = new Upload(file, inside);
      upload.changed = () => this.show();
      if (file.size > this.about.largest_upload_bytes) {
        const most = this.about.largest_upload_bytes / 2 ** 30;
        Object.assign(upload, {
          state: "failed",
          problem: `the file has more than ${most} GiB; give it to bsmamba2 separate, or split it first`,
        });
      }
      this.uploads.push(upload);
    }
    if (songs.length) announce(songs.length === 1 ? `${songs[0].file.name} added.` : `${songs.length} songs added.`);
    this.show();
    this.sendAll();
  }

  // Sends the files one after another, as soon as the model is there.
  async sendAll() {
    if (this.isSending) return;
    this.isSending = true;
    for (;;) {
      const upload = this.uploads.find(({ state }) => state === "waiting");
      if (!upload || !this.page.choices.isReady) break;
      try {
        const song = await upload.send(this.page.choices.fields);
        this.remove(upload);
        if (song && !this.session.songs.has(song.id)) this.session.take(song);
      } catch (error) {
        Object.assign(upload, { state: "failed", problem: error.message });
      }
      this.show();
    }
    this.isSending = false;
  }

  // Cancels all that is to do, what is in work last: otherwise it would be followed by the next one.
  async cancelAll() {
    const songs = [...this.session.songs.values()].filter((song) => !isEnded(song));
    for (const upload of this.uploads.filter(({ state }) => state !== "failed")) {
      upload.sending?.abort();
      this.remove(upload);
    }
    this.heading.focus();
    this.show();
    for (const { id } of songs.reverse()) await this.page.act("POST", `songs/${id}/cancel`);
  }

  remove(upload) {
    this.uploads = this.uploads.filter((each) => each !== upload);
  }

  show() {
    const entries = [...this.session.songs.values(), ...this.uploads];
    const wanted = new Set(entries.map((entry) => entry.id ?? entry));
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      if (row.box.contains(document.activeElement)) (row.box.nextElementSibling ?? this.heading).focus();
      row.box.remove();
      this.rows.delete(key);
    }
    entries.forEach((entry, place) => {
      const key = entry.id ?? entry;
      if (!this.rows.has(key)) this.rows.set(key, entry.id ? new SongRow(this.page) : new UploadRow(this));
      const row = this.rows.get(key);
      row.show(entry);
      if (this.list.children[place] !== row.box) this.list.insertBefore(row.box, this.list.children[place] ?? null);
    });
    const left = entries.filter((entry) => !(entry.id ? isEnded(entry) : entry.state === "failed")).length;
    this.cancelButton.hidden = left < 2;
    this.heading.textContent = left > 1 ? `Songs, ${left} to do` : "Songs";
    if (this.host.hidden && entries.length) this.page.choices.fold();
    this.host.hidden = !entries.length;
    document.body.classList.toggle("empty", !entries.length);
  }
}

// Returns the folder of a file that was chosen with its folder.
function folderOf(file) {
  return (file.webkitRelativePath ?? "").split("/").slice(0, -1).join("/");
}

// A song in the list.
class Row {
  constructor() {
    this.title = element("span", { className: "title" });
    this.state = element("span", { className: "state" });
    this.bar = element("progress", { max: 1 });
    this.actions = element("div", { className: "actions" });
    this.canvas = element("canvas", { "aria-hidden": "true", hidden: true });
    this.text = element("div", { className: "text" }, this.title, this.state);
    this.box = element("li", { tabIndex: -1 }, this.text, this.canvas, this.bar, this.actions);
    this.shown = "";
    this.values = [];
  }

  // Returns whether these values are what it shows, and takes them if not: of hundreds of songs, few change at a time.
  isShown(...values) {
    const same = values.every((value, place) => value === this.values[place]);
    this.values = values;
    return same;
  }

  describe(title, state, share, kind) {
    this.title.textContent = title;
    this.state.textContent = state;
    this.box.className = kind;
    this.bar.hidden = share === null;
    this.bar.value = share ?? 0;
    this.bar.setAttribute("aria-label", `Progress of ${title}`);
  }

  // Replaces the buttons only if there are different ones, so that the focus stays.
  offer(...buttons) {
    const names = buttons.map(([text]) => text).join();
    if (names === this.shown) return;
    this.shown = names;
    const hadFocus = this.actions.contains(document.activeElement);
    this.actions.replaceChildren(
      ...buttons.map(([text, act, label]) => action(text, act, { "aria-label": `${text} ${label}` })),
    );
    // Not to a button, which a key that is held down would press.
    if (hadFocus) this.box.focus();
  }
}

class UploadRow extends Row {
  constructor(queue) {
    super();
    this.queue = queue;
  }

  show(upload) {
    const { file, state, share, problem } = upload;
    const waiting = this.queue.page.choices.isReady ? "Waiting to be read" : "Waiting for the model";
    if (this.isShown(state, share, problem, waiting)) return;
    const text = { waiting, sending: "Reading", failed: problem }[state];
    this.describe(file.name, text, state === "sending" ? share : null, state === "failed" ? "failed" : "waiting");
    const remove = () => {
      upload.sending?.abort();
      this.queue.remove(upload);
      this.queue.show();
    };
    const again = () => {
      upload.state = "waiting";
      this.queue.sendAll();
    };
    const isTooLarge = file.size > this.queue.about.largest_upload_bytes;
    if (state === "failed")
      this.offer(...(isTooLarge ? [] : [["Try again", again, file.name]]), ["Remove", remove, file.name]);
    else this.offer(["Cancel", remove, file.name]);
  }
}

class SongRow extends Row {
  constructor(page) {
    super();
    this.page = page;
  }

  show(song) {
    const current = String(this.page.result.id === song.id);
    if (this.isShown(song, current)) return;
    this.song = song;
    const share = song.state === "separating" ? song.share : null;
    const title = song.folder ? `${song.folder} / ${song.title}` : song.title;
    this.describe(title, describe(song), share, song.state);
    this.box.setAttribute("aria-current", current);
    const listen = () => this.page.result.listenTo(this.song.id);
    const buttons = [
      ...(isListenable(song) ? [[song.stems.length ? "Listen" : "Listen to the preview", listen, `to ${song.title}`]] : []),
      ...(isEnded(song)
        ? [
            ["Again", () => this.page.again(this.song), `${song.title} with what is chosen now`],
            ["Delete", () => this.page.remove(this.song), song.title],
          ]
        : [["Cancel", () => this.page.act("POST", `songs/${song.id}/cancel`), song.title]]),
    ];
    this.offer(...buttons);
    this.draw();
  }

  // Draws the waveforms of the stems as far as they are there.
  draw() {
    const { peaks, columns, share } = this.song;
    const names = Object.keys(peaks);
    this.canvas.hidden = !names.length;
    if (!names.length) return;
    const [width, height] = [this.canvas.clientWidth, 22 * names.length];
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * devicePixelRatio);
    this.canvas.height = Math.round(height * devicePixelRatio);
    const context = this.canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    const waveforms = names.map((name) => new Waveform({ peaks: peaks[name] }, columns));
    const peak = Math.max(...waveforms.map(({ loudest }) => loudest));
    const style = getComputedStyle(this.box);
    waveforms.forEach((waveform, number) => {
      const drawn = waveform.extremes.length / 2 / columns;
      context.save();
      context.translate(0, 22 * number);
      const view = { from: 0, to: drawn, span: drawn };
      if (drawn)
        waveform.draw(context, view, { width: width * drawn, height: 20 }, peak, style.getPropertyValue(`--series-${number}`));
      context.restore();
    });
  }
}
