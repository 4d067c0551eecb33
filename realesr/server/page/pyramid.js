// One side of a comparison as a canvas draws it: a preview at once, and tiles of it where they are looked at closely.

import * as api from "./api.js";

const PREVIEW_PX = 2048;  // most that the server gives a side of a preview
const MOST_TILES = 300;  // kept decoded: about 300 MB at most
const AT_ONCE = 4;
const PIXELS_FROM = 2;  // from two screen px per image px on, pixels are shown as such

/** Load a picture; a promise of null where there is none. */
function load(address) {
  const image = new Image();
  image.decoding = "async";
  return new Promise((resolve) => {
    image.onload = () => resolve(image);
    image.onerror = () => resolve(null);
    image.src = address;
  });
}

export class Pyramid {
  #id;
  #side;
  #size = { width: 1, height: 1 };
  #changed;
  #preview = null;
  #tiles = new Map();  // address -> image, null while it is loaded or where it failed; the latest used are last
  #wanted = [];
  #loading = 0;

  /**
   * @param {string} id of the job
   * @param {"source"|"result"} side
   * @param {() => void} changed is called when there is more to draw
   */
  constructor(id, side, changed) {
    this.#id = id;
    this.#side = side;
    this.#changed = changed;
    this.ready = load(side === "source" ? api.addressOf.source(id) : api.addressOf.preview(id)).then((image) => {
      this.#preview = image;
      changed();
      return image !== null;
    });
  }

  /**
   * Set how large the picture is drawn at a scale of 1.
   * @param {{width: number, height: number, tile_px?: number, highest_level?: number}} size of the result; with tiles of it where it
   *   is done: `highest_level` is the result at 100 %, and each level below it is half as large
   */
  resize(size) { this.#size = size; }

  /** Forget what has not been loaded yet. */
  close() {
    this.#changed = () => {};
    this.#wanted = [];
  }

  /**
   * Draw what `view` shows. x, y: the image's upper left corner in screen px; scale: screen px per px of the result.
   * @param {CanvasRenderingContext2D} context
   */
  draw(context, { x, y, scale }) {
    const { width, height } = context.canvas;
    context.clearRect(0, 0, width, height);
    if (!this.#preview) return;
    context.imageSmoothingEnabled = scale < PIXELS_FROM;
    context.imageSmoothingQuality = "high";
    const right = Math.round(x + this.#size.width * scale), bottom = Math.round(y + this.#size.height * scale);
    const left = Math.round(x), top = Math.round(y);
    context.drawImage(this.#preview, left, top, right - left, bottom - top);
    this.#wanted = [];
    if (this.#size.tile_px && scale >= this.#tilesFrom) this.#drawTiles(context, { x, y, scale });
    this.#loadNext();
  }

  /** Return the scale from which on both sides are drawn by tiles: a source may be small, and is still in step with the result. */
  get #tilesFrom() { return Math.min(0.999, PREVIEW_PX / Math.max(this.#size.width, this.#size.height)); }

  #drawTiles(context, { x, y, scale }) {
    const { width, height, tile_px, highest_level: highest } = this.#size, { canvas } = context;
    const level = Math.max(0, Math.min(highest, highest + Math.ceil(Math.log2(scale) - 0.01)));
    const side = tile_px * 2 ** (highest - level);  // of a tile, in px of the result
    const first = (offset) => Math.max(0, Math.floor(-offset / scale / side));
    const last = (offset, room, whole) => Math.min(Math.ceil(whole / side), Math.ceil((room - offset) / scale / side));
    for (let row = first(y); row < last(y, canvas.height, height); row += 1) {
      for (let column = first(x); column < last(x, canvas.width, width); column += 1) {
        const tile = this.#tile(level, column, row);
        if (!tile) continue;
        // Edges are rounded, not sizes: neighbours meet without a gap.
        const left = Math.round(x + column * side * scale), top = Math.round(y + row * side * scale);
        const right = Math.round(x + Math.min(width, (column + 1) * side) * scale);
        const bottom = Math.round(y + Math.min(height, (row + 1) * side) * scale);
        context.drawImage(tile, left, top, right - left, bottom - top);
      }
    }
  }

  #tile(level, column, row) {
    const address = api.addressOf.tile(this.#id, this.#side, level, column, row);
    const tile = this.#tiles.get(address);
    if (tile === undefined) {
      this.#wanted.push(address);
    } else {
      this.#tiles.delete(address);
      this.#tiles.set(address, tile);
    }
    return tile;
  }

  #loadNext() {
    while (this.#loading < AT_ONCE && this.#wanted.length > 0) {
      const address = this.#wanted.shift();
      if (this.#tiles.has(address)) continue;
      this.#loading += 1;
      this.#tiles.set(address, null);
      load(address).then((image) => {
        this.#loading -= 1;
        this.#tiles.set(address, image);
        for (const oldest of this.#tiles.keys()) {
          if (this.#tiles.size <= MOST_TILES) break;
          this.#tiles.delete(oldest);
        }
        this.#changed();
        this.#loadNext();
      });
    }
  }
}
