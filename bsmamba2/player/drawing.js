// What is visible of a song, and its drawing.

const SHORTEST_VIEW_SECONDS = 0.05;

// The part of a song that is visible, in seconds.
class View {
  constructor(seconds) {
    this.seconds = seconds;
    this.whole();
  }

  get span() {
    return this.to - this.from;
  }

  get isWhole() {
    return this.span >= this.seconds;
  }

  whole() {
    [this.from, this.to] = [0, this.seconds];
  }

  // Shows a factor more of the song, with one point of it where it was.
  zoom(factor, around) {
    const span = clamp(this.span * factor, Math.min(SHORTEST_VIEW_SECONDS, this.seconds), this.seconds);
    this.moveTo(around - ((around - this.from) / this.span) * span, span);
  }

  moveTo(from, span = this.span) {
    this.from = clamp(from, 0, this.seconds - span);
    this.to = this.from + span;
  }

  // Turns the page if a position is out of sight, and returns whether it did.
  follow(position) {
    if (position >= this.from && position <= this.to) return false;
    this.moveTo(position);
    return true;
  }

  // Returns where in the view seconds are, 0 at its left and 1 at its right.
  place(seconds) {
    return (seconds - this.from) / this.span;
  }

  secondsAt(place) {
    return clamp(this.from + place * this.span, 0, this.seconds);
  }
}

// The waveform of a sound: from its extremes, or from its samples where those are needed and loaded.
class Waveform {
  constructor(sound, rate) {
    this.extremes = new Int8Array(bytesOf(sound.peaks).buffer);
    this.rate = rate;
    this.buffer = null;
  }

  get loudest() {
    return this.extremes.reduce((loudest, value) => Math.max(loudest, Math.abs(value)), 0) / 127;
  }

  // Draws the visible part into a box of pixels, enlarged so that a peak reaches its edges.
  draw(canvas, view, { width, height }, peak, colour) {
    const extremes = this.buffer && width / view.span > this.rate ? this.fromSamples() : this.fromExtremes();
    const [middle, scale] = [height / 2, (height / 2 - 1) / (peak || 1)];
    canvas.fillStyle = colour;
    let previous = null;
    for (let pixel = 0; pixel < width; pixel++) {
      const [begin, end] = [pixel, pixel + 1].map((edge) => view.from + (edge / width) * view.span);
      let [low, high] = extremes(begin, end);
      // Neighbours touch, so that a tone of few samples is a line.
      if (previous) [low, high] = [Math.min(low, previous[1]), Math.max(high, previous[0])];
      previous = [low, high];
      canvas.fillRect(pixel, middle - high * scale - 0.5, 1, Math.max(1, (high - low) * scale + 1));
    }
  }

  fromExtremes() {
    return (begin, end) => {
      const last = this.extremes.length / 2 - 1;
      const first = clamp(Math.floor(begin * this.rate), 0, last);
      const stop = clamp(Math.ceil(end * this.rate) - 1, first, last);
      let [low, high] = [127, -127];
      for (let place = first; place <= stop; place++) {
        low = Math.min(low, this.extremes[2 * place]);
        high = Math.max(high, this.extremes[2 * place + 1]);
      }
      return [low / 127, high / 127];
    };
  }

  fromSamples() {
    const { sampleRate, numberOfChannels, length } = this.buffer;
    const channels = Array.from({ length: numberOfChannels }, (_, channel) => this.buffer.getChannelData(channel));
    return (begin, end) => {
      const first = clamp(Math.floor(begin * sampleRate), 0, length - 1);
      const stop = clamp(Math.ceil(end * sampleRate), first + 1, length);
      let [low, high] = [Infinity, -Infinity];
      for (const samples of channels) {
        for (let place = first; place < stop; place++) {
          low = Math.min(low, samples[place]);
          high = Math.max(high, samples[place]);
        }
      }
      return [low, high];
    };
  }
}

// The spectrogram of a sound: images whose brightness is the level, coloured when they are first visible.
class Spectrogram {
  constructor(sound, song, drawn) {
    this.images = sound.images;
    this.song = song;
    this.table = Spectrogram.colours(song);
    this.drawn = drawn;
    this.coloured = new Map();
  }

  // Returns the colour of each brightness: they span a range below the loudest point of the song.
  static colours({ colours, brightest, range }) {
    return Array.from({ length: 256 }, (_, brightness) => {
      const level = clamp(1 + (brightness - brightest) / range, 0, 1) * (colours.length - 1);
      const lower = Math.min(Math.floor(level), colours.length - 2);
      return colours[lower].map((part, place) => part + (level - lower) * (colours[lower + 1][place] - part));
    });
  }

  draw(canvas, view, { width, height }) {
    canvas.fillStyle = `rgb(${this.table[0].join()})`;
    canvas.fillRect(0, 0, width, height);
    const { imageSeconds, columnRate } = this.song;
    const last = Math.min(Math.floor(view.to / imageSeconds), this.images.length - 1);
    for (let number = Math.floor(view.from / imageSeconds); number <= last; number++) {
      const image = this.coloured.get(number);
      if (image === undefined) this.load(number);
      if (!image) continue;
      const begin = number * imageSeconds;
      const [left, right] = [begin, begin + image.width / columnRate].map((edge) => view.place(edge) * width);
      canvas.drawImage(image, left, 0, right - left, height);
    }
  }

  async load(number) {
    this.coloured.set(number, null);
    const image = new Image();
    image.src = this.images[number];
    await image.decode();
    const canvas = element("canvas", { width: image.width, height: image.height });
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let place = 0; place < pixels.data.length; place += 4) pixels.data.set(this.table[pixels.data[place]], place);
    context.putImageData(pixels, 0, 0);
    this.coloured.set(number, canvas);
    this.drawn();
  }
}
