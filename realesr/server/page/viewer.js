// The panel of one photo: its name and facts, the stage, and what can be done with it.

import * as api from "./api.js";
import { showProgress } from "./files.js";
import { Stage } from "./stage.js";
import { bytesInWords, measuredInWords, sizeInWords, stateInWords, UNFINISHED } from "./words.js";

const NARROW = "(max-width: 61.99rem)";  // as in style.css: there the panel lies over the page

const byId = (id) => document.getElementById(id);
const panel = byId("viewer");

/** Events: "turn" (detail: -1 or 1, to the photo before or after), "again" and "cancel" (detail: an item), "closed" (detail: the item that was shown), "arranged". */
export class Viewer extends EventTarget {
  item = null;
  #settings;
  #stage = new Stage();
  #drawn = null;  // what of the item the stage shows
  #narrow = matchMedia(NARROW);

  constructor(settings) {
    super();
    this.#settings = settings;
    this.#narrow.addEventListener("change", () => {
      // What stood beside the list does not cover it all of a sudden.
      if (this.isOpen && !history.state?.viewer) this.close();
      this.#arrange();
      this.dispatchEvent(new Event("arranged"));
    });
    byId("back").addEventListener("click", () => history.back());
    addEventListener("popstate", () => { if (this.isOpen) this.close(); });
    for (const kind of ["again", "cancel"]) {
      byId(kind).addEventListener("click", () => this.dispatchEvent(new CustomEvent(kind, { detail: this.item })));
    }
    byId("skip").addEventListener("click", () => byId("stage").focus());
    for (const [id, step] of [["previous", -1], ["next", 1]]) byId(id).addEventListener("click", () => this.#turn(step));
    panel.addEventListener("keydown", (event) => {
      if (event.key === "PageUp" || event.key === "PageDown") this.#turn(event.key === "PageUp" ? -1 : 1);
      else if (event.key === "Escape" && this.isOpen) history.back();
      else return;
      event.preventDefault();
    });
  }

  /** Whether the panel lies over the page when it is open, as on a telephone. */
  get isOverlay() { return this.#narrow.matches; }
  get isOpen() { return this.isOverlay && this.item !== null; }

  show(item) {
    const opens = this.item === null;
    this.item = item;
    this.#drawn = null;
    panel.hidden = false;
    // The back button of a telephone closes the panel.
    if (opens && this.isOverlay && !history.state?.viewer) history.pushState({ viewer: true }, "");
    this.#arrange();
    this.update();
  }

  close() {
    const { item } = this;
    this.item = null;
    this.#drawn = null;
    this.#stage.clear();
    panel.hidden = true;
    this.#arrange();
    this.dispatchEvent(new CustomEvent("closed", { detail: item }));
  }

  focus() { if (this.isOverlay) byId("back").focus(); }

  /** Show what has changed of the item. */
  update() {
    const { item } = this, done = item.state === "done";
    byId("viewer-title").textContent = item.name;
    byId("facts").textContent = facts(item);
    byId("save").hidden = !done;
    byId("cancel").hidden = !UNFINISHED.has(item.state);
    byId("again").hidden = item.file === null || UNFINISHED.has(item.state);
    if (done) byId("save").href = api.addressOf.result(item.id);
    this.#showNotices(item.job?.notices ?? []);
    this.#showState(item);
    panel.classList.toggle("compares", done);
    this.#draw(item, done);
  }

  /** Tell whether there are photos before and after this one. */
  place(before, after) {
    byId("previous").setAttribute("aria-disabled", !before);
    byId("next").setAttribute("aria-disabled", !after);
  }

  #turn(step) {
    this.dispatchEvent(new CustomEvent("turn", { detail: step }));
  }

  #draw(item, done) {
    const drawn = item.id !== null && item.job.input ? `${item.id} ${done}` : "";
    if (drawn === this.#drawn || item.state === "gone") return;
    this.#drawn = drawn;
    if (!drawn) {
      panel.classList.add("blank");
      this.#stage.clear();
      return;
    }
    if (item.id !== this.#stage.id) panel.classList.add("blank");
    const isShown = this.#stage.show(item.id, done ? item.job.output : this.#expected(item.job), done);
    isShown.then((shown) => { if (this.#drawn === drawn) panel.classList.toggle("blank", !shown); });
  }

  /** Return about how large the result will be, so that the photo does not change its size when it is done. */
  #expected({ input, options }) {
    const scale = options.scale ?? this.#settings.scaleOfModel;
    return { width: Math.round(input.width * scale), height: Math.round(input.height * scale) };
  }

  #showState(item) {
    byId("state").hidden = item.state === "done";
    byId("state").dataset.state = item.state;
    byId("state-text").textContent = stateInWords(item);
    showProgress(byId("state-progress"), item);
  }

  #showNotices(notices) {
    byId("notices").hidden = notices.length === 0;
    byId("notices").replaceChildren(...notices.map((notice) => Object.assign(document.createElement("li"), { textContent: notice })));
  }

  #arrange() {
    for (const id of ["settings", "add", "files-section"]) byId(id).inert = this.isOpen;
    document.documentElement.classList.toggle("viewing", this.isOpen);
  }
}

function facts({ job, state }) {
  if (!job?.input) return "";
  if (state !== "done") return job.model ? `${sizeInWords(job.input)} \u00b7 ${job.model}` : sizeInWords(job.input);
  const { output, model, seconds } = job;
  const words = [`${job.input.width} \u00d7 ${job.input.height} \u2192 ${sizeInWords(output)}`, output.format.toUpperCase(), bytesInWords(output.bytes)];
  if (model) words.push(model);
  if (seconds !== null) words.push(measuredInWords(seconds));
  return words.join(" \u00b7 ");
}
