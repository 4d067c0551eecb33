// Sends the files that wait, a few at a time, and waits where the server's queue is full.

import * as api from "./api.js";

const AT_ONCE = 2;  // a browser opens six connections to a host: pictures and events need theirs
const USUAL_PAUSE_SECONDS = 2;
const FULL = new Set([429, 503]);
const MOST_TRIES = 5;  // to reach a server that does not answer; one that refuses before it has read all may look the same

export class Uploads {
  #items;
  #sending = new Map();  // item -> AbortController
  #pause = null;

  constructor(items) {
    this.#items = items;
    items.addEventListener("added", () => queueMicrotask(() => this.#sendNext()));  // once all know of it
  }

  get areGoing() { return this.#sending.size > 0; }

  /** Stop sending a file, or take it off those that wait. */
  cancel(item) {
    this.#sending.get(item)?.abort();
    this.#items.change(item, { state: "cancelled" });
  }

  #sendNext() {
    if (this.#pause !== null) return;
    const waiting = this.#items.all.filter((item) => item.state === "waiting");
    for (const item of waiting.slice(0, AT_ONCE - this.#sending.size)) this.#send(item);
  }

  async #send(item) {
    const controller = new AbortController();
    this.#sending.set(item, controller);
    this.#items.change(item, { state: "uploading", sent: 0 });
    const tell = (sent) => { if (item.state === "uploading") this.#items.change(item, { sent }); };
    try {
      const job = await api.submit(item.file, item.name, item.fields, tell, controller.signal);
      this.#items.change(item, { id: job.id, job, state: job.state, sent: 1, full: false, error: job.error });
    } catch (error) {
      if (!controller.signal.aborted) this.#refused(item, error);
    } finally {
      this.#sending.delete(item);
      this.#sendNext();
    }
  }

  #refused(item, error) {
    const full = FULL.has(error.status), tries = full ? 0 : item.tries + 1;
    if (!full && (error.status !== 0 || tries >= MOST_TRIES)) {
      this.#items.change(item, { state: "failed", error: { message: error.message } });
      return;
    }
    this.#items.change(item, { state: "waiting", full, tries });
    clearTimeout(this.#pause);
    this.#pause = setTimeout(() => { this.#pause = null; this.#sendNext(); }, 1000 * (error.retrySeconds ?? USUAL_PAUSE_SECONDS));
  }
}
