// How songs are separated: model or preset, preview, and what is under "More".

const STORED = "choices";
const PRESET_TITLES = {
  vocals: "Vocals",
  instrumental: "Instrumental",
  karaoke: "Karaoke",
  "4stems": "Four stems",
  fast: "Fast",
};
const FIELDS = { format: "Format", bit_depth: "Bit depth", peak: "Beyond full scale" };
const VALUES = { source: "as the song", clip: "clip", rescale: "make quieter", float: "float" };
const POLL_MILLISECONDS = 400;

class Choices {
  constructor(host, about, changed) {
    this.host = host;
    this.about = about;
    this.changed = changed;
    this.device = "";
    this.models = new Map(about.models.map((model) => [model.name, model]));
    const { model, overlap, downmix, format, bit_depth, peak } = about;
    this.values = { model, overlap, downmix, format, bit_depth, peak };
    // Null is automatic: with a large model on a CPU.
    this.preview = null;
    this.downloading = null;
    this.restore();
    this.build();
    this.show();
  }

  // Whether songs can be separated now with what is chosen.
  get isReady() {
    return this.names.every((name) => this.models.get(name)?.here);
  }

  get names() {
    return this.models.has(this.values.model) ? [this.values.model] : this.values.model.split(",");
  }

  get wantsPreview() {
    return this.preview ?? (this.device === "cpu" && this.names.some((name) => this.models.get(name)?.large));
  }

  // Returns what a request has to state.
  get fields() {
    const fields = { ...this.values, preview: this.wantsPreview };
    // Formats that are lossy have none of these.
    if (this.isLossy) fields.bit_depth = "source";
    if (this.isLossy) fields.peak = "clip";
    return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, String(value)]));
  }

  get isLossy() {
    return !["wav", "flac"].includes(this.values.format);
  }

  // A reload keeps what was chosen in this tab.
  restore() {
    try {
      const { preview, ...values } = JSON.parse(sessionStorage.getItem(STORED) ?? "{}");
      const names = (values.model ?? "").split(",");
      if (names.every((name) => this.models.get(name)?.here)) Object.assign(this.values, values);
      this.preview = preview ?? null;
    } catch {
      // What an older page has stored is of no use.
      sessionStorage.removeItem(STORED);
    }
  }

  build() {
    this.presets = this.about.presets
      .filter(({ models }) => models.every((name) => this.models.has(name)))
      .map((preset) => ({ preset, button: this.presetButton(preset) }));
    this.model = element("select", { "aria-describedby": "model-details" });
    this.model.addEventListener("change", () => this.choose({ model: this.model.value }));
    this.details = element("p", { id: "model-details", className: "muted" });
    this.download = element("div", { className: "download", hidden: true });
    this.previewButton = action("Preview first", () => this.togglePreview(), {
      title: "Separates the loudest seconds of a song first, to listen to them while the rest is separated",
    });
    this.more = element("details", {}, element("summary", { textContent: "More" }), this.makeMore());
    this.summary = element("span");
    this.host.querySelector("summary").append(element("b", { textContent: "Settings" }), " ", this.summary);
    this.host.querySelector("div").append(
      element(
        "div",
        { className: "presets", role: "group", "aria-label": "Presets" },
        ...this.presets.map(({ button }) => button),
      ),
      labelled("Model", this.model),
      this.details,
      this.download,
      element("div", { className: "actions" }, this.previewButton),
      this.more,
    );
  }

  // Makes room for the songs.
  fold() {
    this.host.open = false;
  }

  presetButton(preset) {
    const made = action("", () => this.choose({ model: preset.models.join(","), ...preset.options }));
    made.append(
      element("b", { textContent: PRESET_TITLES[preset.name] ?? preset.name }),
      element("small", { textContent: preset.note }),
    );
    return made;
  }

  makeMore() {
    const box = element("div", { className: "more" });
    this.selects = Object.entries(FIELDS).map(([name, title]) => {
      const options = this.about.choices[name].map((value) =>
        element("option", { value, textContent: VALUES[value] ?? (/^\d/.test(value) ? `${value} bit` : value) }),
      );
      const select = element("select", { name }, ...options);
      select.addEventListener("change", () => this.choose({ [name]: select.value }));
      box.append(labelled(title, select));
      return select;
    });
    this.overlap = element("input", { type: "number", min: 0, max: 0.95, step: 0.05, required: true });
    this.overlap.addEventListener("change", () => {
      if (this.overlap.checkValidity()) this.choose({ overlap: Number(this.overlap.value) });
      else this.overlap.value = this.values.overlap;
    });
    this.downmix = element("input", { type: "checkbox" });
    this.downmix.addEventListener("change", () => this.choose({ downmix: this.downmix.checked }));
    const surround = element("label", { className: "check" }, this.downmix, "Mix surround sound down to stereo");
    box.append(labelled("Overlap of segments", this.overlap), surround);
    return box;
  }

  togglePreview() {
    this.preview = !this.wantsPreview;
    this.show();
  }

  // Takes a choice; before a model is downloaded, the page asks.
  async choose(values) {
    const before = { ...this.values };
    Object.assign(this.values, values);
    const missing = this.names.map((name) => this.models.get(name)).filter((model) => model && !model.here);
    this.show();
    if (!missing.length) return;
    const lines = missing.map((model) => `${model.name}: ${size(model.size_bytes)}. ${model.note}. Licence: ${model.licence}.`);
    if (!(await ask("Download this model?", lines, "Download"))) {
      this.values = before;
      this.show();
      return;
    }
    await this.downloadAll(missing, before);
  }

  async downloadAll(models, before) {
    this.downloading = models;
    const bar = element("progress", { max: 1, value: 0 });
    for (const model of models) {
      const text = element("span", { textContent: `Downloading ${model.name}, ${size(model.size_bytes)}` });
      this.download.replaceChildren(text, bar);
      this.download.hidden = false;
      bar.setAttribute("aria-label", text.textContent);
      try {
        await this.downloaded(model, bar);
      } catch (error) {
        this.download.replaceChildren(element("p", { className: "notice bad", textContent: error.message }));
        this.values = before;
        this.downloading = null;
        this.show();
        return;
      }
    }
    this.downloading = null;
    this.download.hidden = true;
    this.show();
  }

  async downloaded(model, bar) {
    const path = `models/${encodeURIComponent(model.name)}`;
    let state = await request("POST", path);
    while (state.running) {
      bar.value = state.share;
      await new Promise((done) => setTimeout(done, POLL_MILLISECONDS));
      state = await request("GET", path);
    }
    if (state.problem) throw new Error(state.problem);
    model.here = true;
    announce(`${model.name} is downloaded.`);
  }

  show() {
    const names = [...this.models.keys()];
    if (!names.includes(this.values.model)) names.unshift(this.values.model);
    const options = names.map((value) => {
      const { here = true, size_bytes: bytes, file } = this.models.get(value) ?? {};
      const name = file ? nameOf(value) : value;
      return element("option", { value, textContent: here ? name : `${name} (download ${size(bytes)})` });
    });
    this.model.replaceChildren(...options);
    this.model.value = this.values.model;
    this.details.replaceChildren(...this.names.map((name) => this.describe(this.models.get(name))).filter(Boolean));
    for (const { preset, button: made } of this.presets) {
      const chosen = this.values.model === preset.models.join(",");
      const same = Object.entries(preset.options).every(([name, value]) => this.values[name] === value);
      made.setAttribute("aria-pressed", String(chosen && same));
      const missing = preset.models.map((name) => this.models.get(name)).filter(({ here }) => !here);
      const bytes = missing.reduce((sum, model) => sum + model.size_bytes, 0);
      made.lastElementChild.textContent = bytes ? `${preset.note} · ${size(bytes)} to download` : preset.note;
    }
    for (const select of this.selects) {
      select.value = this.values[select.name];
      select.disabled = this.isLossy && select.name !== "format";
    }
    this.overlap.value = this.values.overlap;
    this.downmix.checked = this.values.downmix;
    const shown = this.names.map((name) => (this.models.get(name)?.file ? nameOf(name) : name)).join(" and ");
    this.summary.textContent = [shown, this.values.format, ...(this.wantsPreview ? ["preview first"] : [])].join(" · ");
    this.previewButton.setAttribute("aria-pressed", String(this.wantsPreview));
    sessionStorage.setItem(STORED, JSON.stringify({ ...this.values, preview: this.preview }));
    this.changed();
  }

  describe(model) {
    if (!model || model.file) return null;
    const stems = model.stems.length > 8 ? `${model.stems.length} stems` : model.stems.join(", ");
    const score = `${model.score}, as published`;
    return element("span", { textContent: [stems, size(model.size_bytes), score, `licence: ${model.licence}`].join(" · ") });
  }

  setDevice(device) {
    if (device === this.device) return;
    this.device = device;
    this.show();
  }
}
