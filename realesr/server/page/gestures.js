// Moves the divider, the zoom and the place of two pictures that lie one over the other, by mouse, touch, wheel and keys.
// `realesr compare` puts this file into the pages that it writes.

export const STEP = Math.SQRT2;  // of the zoom, by a key or a button

/**
 * @typedef {object} View what is moved; x and y are in CSS px of the stage
 * @property {boolean} isZoomed whether the pictures are larger than the stage
 * @property {number} divided where the divider is
 * @property {(x: number) => void} divideAt
 * @property {(percent: number) => void} divideBy
 * @property {(x: number, y: number) => void} moveBy
 * @property {(factor: number, x?: number, y?: number) => void} zoomBy the point x, y stays where it is
 * @property {() => void} fit
 * @property {(x?: number, y?: number) => void} showFull at 100 %
 */

/**
 * Let the pointers on `stage`, and the keys in `panel` around it, move `view`.
 * A drag that begins at the element `handle`, or while all is in sight, moves the divider, every other one the pictures.
 */
export function listenToGestures(stage, panel, handle, view) {
  listenToPointers(stage, handle, view);
  listenToKeys(stage, panel, view);
}

function listenToPointers(stage, handle, view) {
  const fingers = new Map();
  let divides = false, dividedBefore;
  const place = (event) => {
    const box = stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    if (fingers.size === 1) dividedBefore = view.divided;
    else view.divided = dividedBefore;  // the first finger was no stroke of the line
    divides = fingers.size === 1 && (event.target === handle || !view.isZoomed);
    if (divides) view.divideAt(place(event).x);
  });
  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId), now = place(event);
    if (!before) return;
    fingers.set(event.pointerId, now);
    if (fingers.size === 2) {
      const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
      const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y);
      view.moveBy((now.x - before.x) / 2, (now.y - before.y) / 2);
      view.zoomBy(apart(now) / Math.max(1, apart(before)), (now.x + other.x) / 2, (now.y + other.y) / 2);
    } else if (divides) view.divideAt(now.x);
    else view.moveBy(now.x - before.x, now.y - before.y);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, (event) => { fingers.delete(event.pointerId); divides = false; });
  }
  stage.addEventListener("wheel", (event) => {
    if (event.deltaY > 0 && !view.isZoomed && !event.ctrlKey) return;  // nothing smaller: the page scrolls
    event.preventDefault();
    const { x, y } = place(event);
    view.zoomBy(2 ** (-event.deltaY / (event.ctrlKey ? 50 : 240)), x, y);
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => {
    const { x, y } = place(event);
    if (view.isZoomed) view.fit();
    else view.showFull(x, y);
  });
}

function listenToKeys(stage, panel, view) {
  panel.addEventListener("keydown", (event) => {
    if (event.target.matches("select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = stage.clientWidth / 10;
    const keys = {
      "+": () => view.zoomBy(STEP), "=": () => view.zoomBy(STEP), "-": () => view.zoomBy(1 / STEP), 0: () => view.fit(), 1: () => view.showFull(),
    };
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    const turns = { ArrowLeft: -2, ArrowRight: 2 };
    if (keys[event.key]) keys[event.key]();
    else if (event.target !== stage) return;
    else if (view.isZoomed && moves[event.key]) view.moveBy(...moves[event.key]);
    else if (!view.isZoomed && turns[event.key]) view.divideBy(turns[event.key]);
    else return;
    event.preventDefault();
  });
}
