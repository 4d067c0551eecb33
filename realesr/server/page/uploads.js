// Sends the files that wait, a few at a time; holds them back where the queue is full or the server cannot be reached.

import * as api from "./api.js";

const AT_ONCE = 2;  // a browser opens six connections to a host: pictures and events need theirs
const USUAL_PAUSE_SECONDS = 2;
const FULL = new Set([429, 503]);
const UNREACHED = new Set([0, 401]);  // no answer, or none for this browser
const MOST_TRIES = 5;  // while the server answers: one that refuses before it has read all may look as if it did not

/** Events: "unreached" when a file could not be sent because nothing answered it, or the server lets this browser in no more. */
export class Uploads extends EventTarget {
  #items;
  #sending = new Map();  // item -> AbortController
  #pause = null;
  #isHeld = false;

  constructor(items) {
    super();
    this.#items = items;
    items.addEventListener("added", () => queueMicrotask(() => this.#sendNext()));  // once all know of it
  }

  get areGoing() { return this.#sending.size > 0; }

  /** Send nothing while the server is known not to answer. */
  hold(isHeld) {
    this.#isHeld = isHeld;
    this.#sendNext();
  }

  /** Stop sending a file, or take it off those that wait. */
  cancel(item) {
    // A file that has been sent whole may be a job already: that is deleted when the answer comes.
    if (item.sent < 1) this.#sending.get(item)?.abort();
    this.#items.change(item, { state: "cancelled" });
  }

  #sendNext() {
    if (this.#pause !== null || this.#isHeld) return;
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
      if (item.state === "uploading") this.#items.change(item, { id: job.id, job, state: job.state, sent: 1, refusal: null, error: job.error });
      else await this.#delete(job);
    } catch (error) {
      if (item.state === "uploading") this.#refused(item, error);
    } finally {
      this.#sending.delete(item);
      this.#sendNext();
    }
  }

  async #delete(job) {
    await api.remove(job.id);  // cancels it
    await api.remove(job.id);  // and deletes what is over
  }

  #refused(item, error) {
    const isFull = FULL.has(error.status), tries = item.tries + (isFull ? 0 : 1);
    if (!isFull && !(UNREACHED.has(error.status) && tries < MOST_TRIES)) {
      this.#items.change(item, { state: "failed", error: { message: error.message } });
      return;
    }
    this.#items.change(item, { state: "waiting", refusal: error.message, tries });
    if (!isFull) this.dispatchEvent(new Event("unreached"));
    clearTimeout(this.#pause);
    this.#pause = setTimeout(() => { this.#pause = null; this.#sendNext(); }, 1000 * (error.retrySeconds ?? USUAL_PAUSE_SECONDS));
  }
}
