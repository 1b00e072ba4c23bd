// The audio: it is decoded, mixed, played and measured here, without any element of the page.

// Seconds between a command and its effect, in which all sounds are prepared to begin together.
const LEAD_SECONDS = 0.03;
// Sounds fade in and out this fast: shorter clicks, longer is audible.
const FADE_SECONDS = 0.004;
// Songs up to this length are not too long for a browser.
const LONGEST_SURE_SECONDS = 3600;

// The audio of the page: one context for all songs, of which one plays at a time.
const output = {
  context: null,
  playing: null,

  // Opens the context. Browsers allow that only after the user has clicked or pressed a key.
  open(sampleRate) {
    this.context ??= new AudioContext({ sampleRate });
    return this.context;
  },

  // Closes the context, so that the next song has one of its own sampling rate.
  close() {
    this.context?.close();
    this.context = this.playing = null;
  },

  // Pauses the song that plays, if it is a different one.
  hand(mixer) {
    if (this.playing && this.playing !== mixer) this.playing.pause();
    this.playing = mixer;
  },
};

// Levels of a sound after its volume, of its left and right channel.
class Meter {
  constructor(context, node) {
    const splitter = context.createChannelSplitter(2);
    node.connect(splitter);
    this.analysers = [0, 1].map((channel) => {
      const analyser = context.createAnalyser();
      analyser.fftSize = 2048;
      splitter.connect(analyser, channel);
      return analyser;
    });
    this.samples = new Float32Array(2048);
  }

  // Returns the peaks of the last samples of both channels.
  peaks() {
    return this.analysers.map((analyser) => {
      analyser.getFloatTimeDomainData(this.samples);
      let peak = 0;
      for (const sample of this.samples) peak = Math.max(peak, Math.abs(sample));
      return peak;
    });
  }
}

// Plays the sounds of a song together. It knows no element of the page.
class Mixer {
  constructor(song, ended) {
    this.song = song;
    this.ended = ended;
    this.buffers = null;
    this.channels = [];
    this.take = null;
    this.pausedAt = 0;
    this.loop = null;
    this.master = null;
    this.masterGain = 1;
  }

  // Makes the graph of the decoded sounds: each sound has a gain and a meter, and all have one of both in common.
  connect() {
    if (this.master) return;
    const context = output.open(this.song.rate);
    const gain = context.createGain();
    gain.gain.value = this.masterGain;
    gain.connect(context.destination);
    this.master = { gain, meter: new Meter(context, gain) };
    this.channels = this.buffers.map(() => {
      const channel = context.createGain();
      channel.channelCount = 2;
      channel.channelCountMode = "explicit";
      channel.connect(gain);
      return { gain: channel, meter: new Meter(context, channel) };
    });
  }

  get isPlaying() {
    return this.take !== null;
  }

  // Seconds of the song that are audible now.
  get position() {
    if (!this.take) return this.pausedAt;
    const { from, at, loop } = this.take;
    const position = from + Math.max(0, output.context.currentTime - at);
    if (loop && position >= loop.end) return loop.start + ((position - loop.start) % (loop.end - loop.start));
    return Math.min(position, this.song.seconds);
  }

  play() {
    output.hand(this);
    output.context.resume();
    this.begin(this.position >= this.song.seconds ? 0 : this.position);
  }

  pause() {
    const position = this.position;
    this.release(output.context.currentTime);
    this.pausedAt = position;
  }

  seek(seconds) {
    this.pausedAt = clamp(seconds, 0, this.song.seconds);
    if (this.take) this.begin(this.pausedAt);
  }

  // Repeats a part {start, end}, or nothing; a playing song continues where it is, or at the start of the part.
  repeat(loop) {
    const position = this.position;
    this.loop = loop;
    if (this.take) this.begin(position);
  }

  // Starts all sounds at one instant of the clock, which is the end of those that play.
  begin(position) {
    const context = output.context;
    const at = context.currentTime + LEAD_SECONDS;
    const loop = this.loop;
    const from = loop && position >= loop.end ? loop.start : position;
    this.release(at);
    const sources = this.buffers.map((buffer, place) => {
      const [source, fade] = [context.createBufferSource(), context.createGain()];
      source.buffer = buffer;
      if (loop) Object.assign(source, { loop: true, loopStart: loop.start, loopEnd: loop.end });
      fade.gain.setValueAtTime(0, at);
      fade.gain.linearRampToValueAtTime(1, at + FADE_SECONDS);
      source.connect(fade).connect(this.channels[place].gain);
      source.start(at, from);
      return { source, fade };
    });
    const take = { sources, at, from, loop };
    this.take = take;
    sources[0].source.onended = () => {
      if (this.take !== take) return;
      this.take = null;
      this.pausedAt = this.song.seconds;
      this.ended();
    };
  }

  // Fades the sounds that play out before an instant of the clock.
  release(at) {
    for (const { source, fade } of this.take?.sources ?? []) {
      fade.gain.setValueAtTime(1, at);
      fade.gain.linearRampToValueAtTime(0, at + FADE_SECONDS);
      source.stop(at + FADE_SECONDS);
    }
    this.take = null;
  }

  setGains(gains) {
    this.channels.forEach(({ gain }, place) => this.glide(gain, gains[place]));
  }

  setMasterGain(gain) {
    this.masterGain = gain;
    if (this.master) this.glide(this.master.gain, gain);
  }

  glide(node, gain) {
    const now = output.context.currentTime;
    node.gain.cancelScheduledValues(now);
    node.gain.setValueAtTime(node.gain.value, now);
    node.gain.linearRampToValueAtTime(gain, now + 2 * FADE_SECONDS);
  }
}

// Where the sound of a song comes from: inside the page, a server, or files that the user chooses.
class Source {
  constructor(song) {
    this.song = song;
    this.chosen = new Map();
  }

  // Names of the files that the user has to choose: a page that was opened from a disk may not read any.
  get missing() {
    if (location.protocol !== "file:") return [];
    return this.names.filter((name) => !this.chosen.has(name));
  }

  get names() {
    return this.song.sounds.flatMap(({ file }) => (file ? [nameOf(file)] : []));
  }

  // Takes files, of which those with a wanted name are used.
  choose(files) {
    for (const file of files) if (this.names.includes(file.name)) this.chosen.set(file.name, file);
  }

  // Returns the decoded sounds. A context that is not for playing decodes without a command of the user.
  async decode() {
    const decoder = new OfflineAudioContext(1, 1, this.song.rate);
    return Promise.all(
      this.song.sounds.map(async (sound) => {
        const name = sound.file ? nameOf(sound.file) : `the sound of ${sound.name}`;
        // One that is too large for the memory of a browser is not decoded either.
        const bytes = await this.read(sound).catch(() => undefined);
        if (bytes === null) throw new Error(`${name} is not there; put it next to this page again.`);
        try {
          return await decoder.decodeAudioData(bytes);
        } catch {
          if (this.song.seconds < LONGEST_SURE_SECONDS) throw new Error(`This browser cannot decode ${name}.`);
          throw new Error("This song is too long for this browser; play the stem files, or separate a part of it.");
        }
      }),
    );
  }

  // Returns the bytes of a sound, or null if its file is not there.
  async read({ file, sound }) {
    if (!file) return bytesOf(sound).buffer;
    if (this.chosen.has(nameOf(file))) return this.chosen.get(nameOf(file)).arrayBuffer();
    let answer;
    try {
      answer = await fetch(file);
    } catch {
      return null;
    }
    return answer.ok ? answer.arrayBuffer() : null;
  }
}
