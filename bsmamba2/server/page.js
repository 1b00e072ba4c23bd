// The page as a whole.

class Page {
  constructor(about) {
    const host = (id) => document.getElementById(id);
    this.lost = host("lost");
    this.about = about;
    this.session = new Session(() => this.showSoon());
    this.isDue = false;
    Object.assign(this.session, { device: about.device, problem: about.problem });
    this.result = new Result(host("result"), this.session, about, this);
    this.choices = new Choices(host("choices"), about, () => {
      this.queue?.show();
      this.queue?.sendAll();
    });
    this.queue = new Queue(host("queue"), host("drop"), this.session, about, this);
    host("about").textContent = about.output
      ? `Songs are separated on this machine. Stems are kept in ${about.output}.`
      : "Songs are separated on this machine. Stems are deleted when bsmamba2 ends; download what you want to keep.";
    this.session.follow();
    this.show();
    // The model of the command line may have to be downloaded.
    if (!this.choices.isReady) this.choices.choose({});
  }

  // Shows several changes at once: after a reload, those of all songs come together.
  showSoon() {
    if (this.isDue) return;
    this.isDue = true;
    setTimeout(() => {
      this.isDue = false;
      this.show();
    });
  }

  show() {
    const { isLost, problem, device } = this.session;
    this.choices.setDevice(device);
    this.lost.hidden = !isLost && !problem;
    this.lost.textContent = isLost
      ? "The connection to bsmamba2 is lost. If it has ended, start it again; otherwise this page will find it."
      : problem;
    this.result.update();
    this.queue.show();
  }

  // Does something to a song.
  async act(method, path, body) {
    this.queue.problem.hidden = true;
    try {
      return await request(method, path, body);
    } catch (error) {
      this.tell(error.message);
      return null;
    }
  }

  // Shows what went wrong where songs are added.
  tell(problem) {
    this.queue.problem.textContent = problem;
    this.queue.problem.hidden = false;
  }

  async again(song) {
    if (this.choices.isReady) await this.act("POST", `songs/${song.id}/again`, this.choices.fields);
  }

  async remove(song) {
    const kept = this.about.output && song.stems.length;
    const question = kept ? "Its stems are deleted from the disk." : "Its stems are deleted.";
    if (!song.stems.length || (await ask(`Delete ${song.title}?`, [question], "Delete")))
      await this.act("DELETE", `songs/${song.id}`);
  }
}

async function start() {
  try {
    document.body.page = new Page(await request("GET", "session"));
  } catch (error) {
    const lost = document.getElementById("lost");
    lost.textContent = error.message;
    lost.hidden = false;
  }
}

start();
