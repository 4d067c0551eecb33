// Follows the jobs: server-sent events for those that run, and a look at all of them every few seconds.

import * as api from "./api.js";

const STREAMS = 2;  // each takes one of the six connections that a browser opens to a host
const BUSY_MS = 2000;
const IDLE_MS = 30000;

/** Events: "answered" and "silent" (detail: the ApiError) tell whether the server could be reached. */
export class Follower extends EventTarget {
  #items;
  #uploads;
  #streams = new Map();  // id -> EventSource
  #timer = null;
  #looks = 0;

  constructor(items, uploads) {
    super();
    this.#items = items;
    this.#uploads = uploads;
    items.addEventListener("changed", () => this.#follow());
    items.addEventListener("removed", () => this.#follow());
    document.addEventListener("visibilitychange", () => { this.#follow(); if (!document.hidden) this.look(); });
  }

  /** Ask for all jobs of this browser now, and again later. */
  async look() {
    const number = ++this.#looks;
    clearTimeout(this.#timer);
    const known = this.#items.all.filter((item) => item.id !== null);
    let isSilent = true;
    try {
      const jobs = await api.jobs();
      if (number !== this.#looks) return;
      this.#take(jobs, known);
      isSilent = false;
      this.dispatchEvent(new Event("answered"));
    } catch (error) {
      if (number !== this.#looks) return;
      this.dispatchEvent(new CustomEvent("silent", { detail: error }));
    }
    this.#timer = setTimeout(() => this.look(), this.#pauseMs(isSilent));
    this.#follow();
  }

  #pauseMs(isSilent) {
    const isBusy = isSilent || this.#items.unfinished.length > 0;
    return isBusy && !document.hidden ? BUSY_MS : IDLE_MS;
  }

  #take(jobs, known) {
    for (const job of jobs) {
      // While a file is being sent, a job that is not known yet may be that very file.
      if (this.#items.withId(job.id) || !this.#uploads.areGoing) this.#items.receive(job);
    }
    const kept = new Set(jobs.map((job) => job.id));
    for (const item of known) {
      if (!kept.has(item.id) && item.state !== "gone") this.#items.change(item, { state: "gone" });
    }
  }

  #follow() {
    const wanted = document.hidden ? [] : this.#nextToFinish();
    for (const [id, stream] of this.#streams) {
      if (wanted.includes(id)) continue;
      stream.close();
      this.#streams.delete(id);
    }
    for (const id of wanted) if (!this.#streams.has(id)) this.#open(id);
  }

  #nextToFinish() {
    const place = (item) => (item.state === "running" ? 0 : item.job.place ?? Infinity);
    return this.#items.all
      .filter((item) => item.state === "running" || item.state === "queued")
      .sort((a, b) => place(a) - place(b))
      .slice(0, STREAMS)
      .map((item) => item.id);
  }

  #open(id) {
    const stream = new EventSource(api.addressOf.events(id));
    this.#streams.set(id, stream);
    stream.addEventListener("job", (event) => {
      const { state } = this.#items.receive(JSON.parse(event.data));
      if (state !== "running" && state !== "queued") this.look();  // the places of the others have changed
    });
    stream.onerror = () => {
      stream.close();
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => { this.#streams.delete(id); this.look(); }, BUSY_MS / 2);
    };
  }
}
