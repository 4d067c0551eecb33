// Draws one photo before and after, one over the other, with a divider, zoom and pan.

import { listenToGestures, STEP } from "./gestures.js";
import { Pyramid } from "./pyramid.js";

const MOST = 8;  // screen px per px of the result

const byId = (id) => document.getElementById(id);
const stage = byId("stage"), divider = byId("divider");

/** Events: "drawn" after each change of the view. */
export class Stage extends EventTarget {
  id = null;  // of the job that is shown
  #size = { width: 1, height: 1 };
  #sides = {};  // "before" and "after" -> Pyramid
  #view = { scale: 1, x: 0, y: 0 };  // CSS px per px of the result; where its upper left corner is, in CSS px of the stage
  #fitted = true;
  #frame = null;

  constructor() {
    super();
    new ResizeObserver(() => this.#moved()).observe(stage);
    divider.addEventListener("input", () => this.#moved());
    byId("in").addEventListener("click", () => this.zoomBy(STEP));
    byId("out").addEventListener("click", () => this.zoomBy(1 / STEP));
    byId("fit").addEventListener("click", () => this.fit());
    byId("full").addEventListener("click", () => this.showFull());
    listenToGestures(stage, byId("viewer"), byId("handle"), this);
  }

  /** Show the photo of a job, which is `size` large when it is `done`; until then only its source. */
  show(id, size, done) {
    if (id !== this.id) this.clear();
    this.id = id;
    this.#size = size;
    const redraw = () => this.#moved();
    this.#sides.before ??= new Pyramid(id, "source", redraw);
    if (done) this.#sides.after ??= new Pyramid(id, "result", redraw);
    for (const side of Object.values(this.#sides)) side.resize(size);
    divider.value = 50;
    this.fit();
    return (this.#sides.after ?? this.#sides.before).ready;
  }

  clear() {
    for (const side of Object.values(this.#sides)) side.close();
    this.id = null;
    this.#sides = {};
    this.#moved();
  }

  get isZoomed() { return !this.#fitted; }
  get divided() { return divider.value; }
  set divided(percent) { divider.value = percent; this.#moved(); }
  get #fitScale() {
    const { width, height } = this.#size;
    return Math.min(stage.clientWidth / width, stage.clientHeight / height, 1);
  }
  get #mostScale() { return Math.max(MOST / devicePixelRatio, this.#fitScale); }

  /** Return the part of the stage that the photo covers, in CSS px. */
  get #covered() {
    const { scale, x, y } = this.#view, { width, height } = this.#size;
    const left = Math.max(0, x), top = Math.max(0, y);
    return {
      left, top,
      right: Math.min(stage.clientWidth, x + width * scale),
      bottom: Math.min(stage.clientHeight, y + height * scale),
    };
  }

  fit() {
    this.#fitted = true;
    this.#moved();
  }

  showFull(x, y) { this.zoomTo(1 / devicePixelRatio, x, y); }
  zoomBy(factor, x, y) { this.zoomTo(this.#view.scale * factor, x, y); }

  /** Zoom to `scale` CSS px per px of the result, so that the point x, y of the stage stays where it is. */
  zoomTo(scale, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const least = this.#fitScale, wanted = Math.min(this.#mostScale, Math.max(least, scale)), factor = wanted / this.#view.scale;
    this.#fitted = wanted <= least * 1.001;
    this.#view = { scale: wanted, x: x - (x - this.#view.x) * factor, y: y - (y - this.#view.y) * factor };
    this.#moved();
  }

  moveBy(x, y) {
    this.#view.x += x;
    this.#view.y += y;
    this.#moved();
  }

  /** Put the divider at x CSS px of the stage. */
  divideAt(x) {
    const { left, right } = this.#covered;
    this.divided = (100 * (x - left)) / Math.max(1, right - left);
  }

  divideBy(percent) { this.divided = Number(divider.value) + percent; }

  /** Keep the photo inside the stage, or in its middle where it is smaller, and draw it in the next frame. */
  #moved() {
    const { width, height } = this.#size, view = this.#view;
    if (this.#fitted) view.scale = this.#fitScale;
    const inside = (offset, room, length) => (length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, offset)));
    view.x = inside(view.x, stage.clientWidth, width * view.scale);
    view.y = inside(view.y, stage.clientHeight, height * view.scale);
    this.#frame ??= requestAnimationFrame(() => { this.#frame = null; this.#draw(); });
  }

  #draw() {
    const ratio = devicePixelRatio, { scale, x, y } = this.#view, { left, top, right, bottom } = this.#covered;
    for (const name of ["before", "after"]) {
      const canvas = byId(name);
      const width = Math.round(stage.clientWidth * ratio), height = Math.round(stage.clientHeight * ratio);
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      const context = canvas.getContext("2d");
      if (this.#sides[name]) this.#sides[name].draw(context, { scale: scale * ratio, x: x * ratio, y: y * ratio });
      else context.clearRect(0, 0, width, height);
    }
    const place = { left, top, right: stage.clientWidth - right, bottom: stage.clientHeight - bottom, divider: left + ((right - left) * divider.value) / 100 };
    for (const [name, px] of Object.entries(place)) stage.style.setProperty(`--${name}`, `${px}px`);
    const full = Math.abs(scale * ratio - 1) < 0.001;
    stage.classList.toggle("zoomed", this.isZoomed);
    Object.assign(stage.dataset, { scale: scale * ratio, x: x * ratio, y: y * ratio });
    byId("fit").setAttribute("aria-pressed", this.#fitted);
    byId("full").setAttribute("aria-pressed", full);
    byId("zoom-value").value = `${Math.round(100 * scale * ratio)} %`;
  }
}
