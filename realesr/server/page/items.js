// What the page knows about each file, sent or not yet. Everything that is shown follows from these.

import { UNFINISHED } from "./words.js";

let made = 0;

/**
 * The files in the order in which they were added. An item has: key, name, bytes, file (null after a reload), fields (settings
 * it was added with), id and job (null until the server has it), state, sent (share of the upload), refusal (why the server did not take it
 * yet, or null), tries (that failed for want of an answer), error.
 * Events: "added", "changed", "removed", each with the item as `detail`.
 */
export class Items extends EventTarget {
  #byKey = new Map();

  get all() { return [...this.#byKey.values()]; }
  get unfinished() { return this.all.filter((item) => UNFINISHED.has(item.state)); }
  get(key) { return this.#byKey.get(key); }
  withId(id) { return this.all.find((item) => item.id === id); }

  addFile(file, name, fields) {
    return this.#add({ name, bytes: file.size, file, fields, id: null, job: null, state: "waiting", sent: 0, refusal: null, tries: 0, error: null });
  }

  addJob(job) {
    return this.#add({
      name: job.name, bytes: 0, file: null, fields: null, id: job.id, job, state: job.state, sent: 1, refusal: null, tries: 0, error: job.error,
    });
  }

  #add(facts) {
    const item = { key: `file-${++made}`, ...facts };
    this.#byKey.set(item.key, item);
    this.#tell("added", item);
    return item;
  }

  change(item, facts) {
    Object.assign(item, facts);
    if (this.#byKey.has(item.key)) this.#tell("changed", item);
  }

  /** Take over what the server says about a job. A state that came earlier on another connection does not undo a later one. */
  receive(job) {
    const item = this.withId(job.id);
    if (!item) return this.addJob(job);
    if (!UNFINISHED.has(item.state) && UNFINISHED.has(job.state)) return item;
    this.change(item, { job, state: job.state, error: job.error });
    return item;
  }

  remove(item) {
    if (this.#byKey.delete(item.key)) this.#tell("removed", item);
  }

  #tell(kind, item) {
    this.dispatchEvent(new CustomEvent(kind, { detail: item }));
  }
}
