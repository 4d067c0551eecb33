// The list of files: a line for each, how many there are, and what can be done with all of them.

import * as api from "./api.js";
import { count, secondsInWords, shareOf, stateInWords, UNFINISHED } from "./words.js";

const FILTERS = {
  all: { label: "All", has: () => true },
  unfinished: { label: "Active", has: ({ state }) => UNFINISHED.has(state) },
  done: { label: "Done", has: ({ state }) => state === "done" },
  failed: { label: "Failed", has: ({ state }) => state === "failed" || state === "gone" },
};

const byId = (id) => document.getElementById(id);

/** Events: "open", "stop", each with an item as `detail`. */
export class FileList extends EventTarget {
  #items;
  #lines = new Map();  // item -> <li>
  #filter = "all";
  #open = null;
  #frame = null;

  constructor(items) {
    super();
    this.#items = items;
    items.addEventListener("added", ({ detail }) => this.#add(detail));
    items.addEventListener("changed", ({ detail }) => { this.#update(detail); this.#countLater(); });
    items.addEventListener("removed", ({ detail }) => this.#remove(detail));
    for (const [name, { label }] of Object.entries(FILTERS)) {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.filter = name;
      button.append(`${label} `, document.createElement("span"));
      button.addEventListener("click", () => { this.#filter = name; this.#count(); });
      byId("filters").append(button);
    }
    byId("list").addEventListener("keydown", (event) => this.#walk(event));
    this.#count();
  }

  /** Return the items that the filter lets through, in their order. */
  get shown() { return this.#items.all.filter((item) => this.#isShown(item)); }

  /** Mark the item that the viewer shows. */
  mark(item) {
    this.#lines.get(this.#open)?.querySelector(".open").removeAttribute("aria-current");
    this.#open = item;
    const line = this.#lines.get(item);
    line?.querySelector(".open").setAttribute("aria-current", "true");
    line?.scrollIntoView({ block: "nearest" });
  }

  focus(item) { this.#lines.get(item)?.querySelector(".open").focus(); }

  /** Go from file to file by the arrow keys. */
  #walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key], { shown } = this;
    const place = shown.findIndex((item) => this.#lines.get(item).contains(event.target));
    if (!step || !shown[place + step]) return;
    event.preventDefault();
    this.focus(shown[place + step]);
  }

  #isShown(item) { return FILTERS[this.#filter].has(item) || item === this.#open; }

  #add(item) {
    const line = byId("file-template").content.firstElementChild.cloneNode(true);
    const tell = (kind) => () => this.dispatchEvent(new CustomEvent(kind, { detail: item }));
    const open = line.querySelector(".open");
    open.textContent = open.title = item.name;
    open.addEventListener("click", tell("open"));
    line.querySelector(".stop").addEventListener("click", tell("stop"));
    line.querySelector("progress").setAttribute("aria-label", `Progress of ${item.name}`);
    this.#lines.set(item, line);
    byId("list").append(line);
    this.#update(item);
    this.#countLater();
  }

  #remove(item) {
    const line = this.#lines.get(item);
    const neighbour = line.contains(document.activeElement) ? line.nextElementSibling ?? line.previousElementSibling : null;
    line.remove();
    this.#lines.delete(item);
    neighbour?.querySelector(".open").focus();
    this.#countLater();
  }

  #update(item) {
    const line = this.#lines.get(item), unfinished = UNFINISHED.has(item.state);
    const text = line.querySelector(".line"), stop = line.querySelector(".stop"), save = line.querySelector(".save");
    line.dataset.state = item.state;
    line.hidden = !this.#isShown(item);
    text.textContent = text.title = stateInWords(item);
    stop.title = unfinished ? "Cancel" : "Remove from the list";
    stop.setAttribute("aria-label", unfinished ? `Cancel ${item.name}` : `Remove ${item.name} from the list`);
    save.hidden = item.state !== "done";
    if (item.state === "done" && !save.href) {
      save.href = api.addressOf.result(item.id);
      save.setAttribute("aria-label", `Save ${item.name}, enlarged`);
    }
    showProgress(line.querySelector("progress"), item);
    if (item.id !== null && item.job.input) showThumbnail(line.querySelector(".thumbnail"), item);
  }

  /** Count once a frame, however many items have changed. */
  #countLater() {
    this.#frame ??= requestAnimationFrame(() => { this.#frame = null; this.#count(); });
  }

  #count() {
    const all = this.#items.all, done = all.filter(FILTERS.done.has), unfinished = this.#items.unfinished;
    for (const [item, line] of this.#lines) line.hidden = !this.#isShown(item);
    byId("count").textContent = count(all.length, "photo", "photos");
    byId("remaining").textContent = remainingInWords(all, unfinished);
    byId("total").value = all.length ? (all.length - unfinished.length + sum(unfinished, shareOf)) / all.length : 0;
    // What belongs to several photos keeps its room, so that nothing moves while they are worked on.
    for (const id of ["filters", "all"]) byId(id).hidden = all.length < 2;
    byId("total").hidden = all.length < 2 || unfinished.length === 0;
    for (const button of byId("filters").children) {
      const name = button.dataset.filter, number = all.filter(FILTERS[name].has).length;
      button.lastElementChild.textContent = number;
      button.lastElementChild.style.minWidth = `${String(all.length).length}ch`;
      button.setAttribute("aria-pressed", name === this.#filter);
      button.hidden = name === "failed" && number === 0 && name !== this.#filter;
    }
    byId("none").hidden = this.shown.length > 0;
    this.#showArchive(done);
    byId("cancel-all").disabled = unfinished.length === 0;
    byId("clear").disabled = all.length === unfinished.length;
    document.title = unfinished.length ? `${all.length - unfinished.length} of ${all.length} \u2013 realesr` : "realesr";
  }

  #showArchive(done) {
    const link = byId("archive");
    if (done.length) link.href = api.addressOf.archive(done.map(({ id }) => id));
    else link.removeAttribute("href");
    link.setAttribute("aria-disabled", done.length === 0);
    link.lastElementChild.textContent = `Save ${done.length} as ZIP`;
  }
}

function sum(items, amountOf) {
  return items.reduce((total, item) => total + (amountOf(item) ?? 0), 0);
}

function remainingInWords(all, unfinished) {
  if (unfinished.length === 0) {
    const failed = all.filter(FILTERS.failed.has).length, done = all.filter(FILTERS.done.has).length;
    return failed ? `${done} done, ${failed} failed` : `${done} done`;
  }
  const finished = `${all.length - unfinished.length} of ${all.length} finished`;
  const jobs = unfinished.map(({ job }) => job);
  const seconds = jobs.map((job) => job && (job.seconds_left ?? job.estimate_seconds));
  // The sum would be too small where any of them is not known.
  if (seconds.some((value) => typeof value !== "number")) return finished;
  return `${finished}, ${secondsInWords(seconds.reduce((total, value) => total + value, 0))} left`;
}

function showProgress(progress, item) {
  const share = shareOf(item);
  progress.hidden = item.state !== "running" && item.state !== "uploading";
  if (share === null) progress.removeAttribute("value");
  else progress.value = share;
}

function showThumbnail(frame, item) {
  if (frame.dataset.of === item.id) return;
  frame.dataset.of = item.id;
  const image = new Image();
  Object.assign(image, { loading: "lazy", decoding: "async", alt: "" });
  image.onload = () => frame.replaceChildren(image);
  image.onerror = () => image.remove();  // the sign of a photo stays
  image.src = api.addressOf.thumbnail(item.id);
  frame.append(image);
}

export { showProgress };
