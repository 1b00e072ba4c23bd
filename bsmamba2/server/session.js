// The server: requests, and the songs as it reports them.

const RETRY_MILLISECONDS = 2000;

// Sends a request and returns the answer; what the server refuses is an error with its sentence.
async function request(method, path, body) {
  const options = { method };
  if (body !== undefined)
    Object.assign(options, { body: JSON.stringify(body), headers: { "content-type": "application/json" } });
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("bsmamba2 does not answer; start it again if it has ended.");
  }
  if (!answer.ok) throw new Error(await sentence(answer));
  return answer.status === 204 ? null : answer.json();
}

// Returns the sentence of an answer that is an error.
async function sentence(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return `bsmamba2 has refused this (${answer.status} ${answer.statusText}).`;
  }
}

// The songs of the server and what is chosen for all; `changed` is called after each change.
class Session {
  constructor(changed) {
    this.changed = changed;
    this.songs = new Map();
    this.device = this.problem = "";
    this.isLost = false;
  }

  // Follows the server; after a lost connection it sends everything again.
  follow() {
    const source = new EventSource("events");
    source.addEventListener("open", () => this.show(false));
    source.addEventListener("error", () => {
      this.show(true);
      // A browser tries again only if the connection broke.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.follow(), RETRY_MILLISECONDS);
    });
    source.addEventListener("session", ({ data }) => {
      const { songs, ...about } = JSON.parse(data);
      Object.assign(this, about);
      for (const id of [...this.songs.keys()]) if (!songs.includes(id)) this.songs.delete(id);
      this.changed();
    });
    source.addEventListener("song", ({ data }) => this.take(JSON.parse(data)));
    source.addEventListener("deleted", ({ data }) => {
      this.songs.delete(JSON.parse(data).id);
      this.changed();
    });
  }

  take(song) {
    const before = this.songs.get(song.id);
    this.songs.set(song.id, song);
    if (before && before.state !== song.state && isEnded(song)) announce(`${song.title}: ${describe(song)}`);
    this.changed();
  }

  show(isLost) {
    this.isLost = isLost;
    this.changed();
  }
}

const isEnded = ({ state }) => ["done", "incomplete", "failed", "cancelled"].includes(state);

// Whether there is something to listen to.
const isListenable = ({ stems, preview }) => stems.length + preview.length > 0;

// Returns the state of a song in words.
function describe(song) {
  const { state, stage, share, seconds_left: left, remark } = song;
  if (state === "separating") {
    const what = stage === "preview" ? "Preview" : "Separating";
    if (!share) return `${what} …`;
    return `${what}, ${Math.round(100 * share)} %${left === null ? "" : `, ${timeLeft(left)}`}`;
  }
  const words = { waiting: "Waiting", done: "Done", cancelled: "Cancelled", failed: "", incomplete: "Damaged" };
  return [words[state], remark].filter(Boolean).join(": ");
}
