// The settings: shown, kept in this browser, and turned into the fields of a request.

import { bytesInWords } from "./words.js";

const KEPT_AS = "realesr.settings";
const LOSSY = { jpeg: 95, webp: 90, avif: 80 };
const FORMATS = { png: "PNG", jpeg: "JPEG", tiff: "TIFF", webp: "WebP", avif: "AVIF" };
const PX = { unit: "px", least: 1, most: 10000000, step: 1 };
/** What is asked for besides the kind of size: label, unit, range, and what it is at first. */
const AMOUNTS = {
  scale: { label: "Factor", unit: "\u00d7", least: 1, most: 16, step: 0.1, usual: 2.5 },
  long_side: { label: "Length of the long side in pixels", usual: 3840, ...PX },
  short_side: { label: "Length of the short side in pixels", usual: 2160, ...PX },
  width: { label: "Width in pixels", usual: 3840, ...PX },
  height: { label: "Height in pixels", usual: 2160, ...PX },
  box: { label: "Width of the box in pixels", usual: 3840, ...PX },
  megapixels: { label: "Area in megapixels", unit: "MP", least: 0.1, most: 100000, step: 0.1, usual: 24 },
};
const AT_FIRST = { open: null, model: null, size: "own", amounts: {}, boxHeight: 2160, strength: 100, format: "", quality: {} };

const byId = (id) => document.getElementById(id);
const SIZES = [...byId("size").options].map(({ value }) => value);

function kept() {
  const chosen = structuredClone(AT_FIRST);
  try {
    const stored = JSON.parse(localStorage.getItem(KEPT_AS)) ?? {};
    for (const [name, value] of Object.entries(AT_FIRST)) {
      if (value === null || (typeof stored[name] === typeof value && stored[name] !== null)) chosen[name] = stored[name] ?? value;
    }
  } catch {
    // Storage is forbidden, or holds something else.
  }
  if (!SIZES.includes(chosen.size)) chosen.size = AT_FIRST.size;
  return chosen;
}

export class Settings {
  #models = [];
  #chosen = kept();

  constructor() {
    const details = byId("settings");
    details.querySelector("summary").addEventListener("click", () => { this.#chosen.open = !details.open; this.#keep(); });
    this.makeRoom(true);
    byId("form").addEventListener("submit", (event) => event.preventDefault());
    byId("form").addEventListener("input", (event) => this.#read(event.target));
  }

  /** Show the settings, or where they would take the list's room their summary; unless somebody has opened or closed them. */
  makeRoom(empty) {
    const usual = matchMedia(empty ? "(min-width: 62rem)" : "(min-width: 62rem) and (min-height: 62rem)").matches;
    byId("settings").open = this.#chosen.open ?? usual;
  }

  /** Fill the choices with what the server offers. */
  offer({ models, formats, limits }) {
    this.#models = models;
    const names = models.map(({ name }) => name);
    if (!names.includes(this.#chosen.model)) this.#chosen.model = (models.find((model) => model.is_default) ?? models[0]).name;
    this.#fillNetworks();
    byId("format").replaceChildren(new Option("Like the photo", ""), ...formats.map((format) => new Option(FORMATS[format] ?? format, format)));
    if (!formats.includes(this.#chosen.format)) this.#chosen.format = "";
    AMOUNTS.scale.most = limits.scale;
    this.#show();
  }

  #fillNetworks() {
    const groups = { "On disk": [], "Fetched when first used": [] };
    for (const { name, on_disk } of this.#models) groups[on_disk ? "On disk" : "Fetched when first used"].push(new Option(name, name));
    byId("model").replaceChildren(...Object.entries(groups).filter(([, options]) => options.length).map(([label, options]) => {
      const group = Object.assign(document.createElement("optgroup"), { label });
      group.append(...options);
      return group;
    }));
  }

  /** Note that a network was used, so that it has been fetched by now. */
  noteOnDisk(name) {
    const model = this.#models.find((one) => one.name === name);
    if (!model || model.on_disk) return;
    model.on_disk = true;
    this.#fillNetworks();
    this.#show();
  }

  get scaleOfModel() { return this.#model?.scale ?? 4; }
  get #model() { return this.#models.find(({ name }) => name === this.#chosen.model); }
  #amount(kind) { return this.#chosen.amounts[kind] ?? AMOUNTS[kind].usual; }

  /** Return the fields of a request as text, or null where a number is out of range; that one is then pointed at. */
  fields() {
    if (!byId("form").checkValidity()) {
      byId("settings").open = true;
      byId("form").reportValidity();
      return null;
    }
    const { model, size, strength, format, quality } = this.#chosen;
    const fields = {};
    if (model) fields.model = model;
    if (size === "box") Object.assign(fields, { width: this.#amount("box"), height: this.#chosen.boxHeight });
    else if (size in AMOUNTS) fields[size] = this.#amount(size);
    else if (size !== "own") fields.scale = size;
    if (strength < 100) fields.strength = strength / 100;
    if (format) fields.format = format;
    if (format in LOSSY && quality[format]) fields.quality = quality[format];
    return fields;
  }

  #read(field) {
    const chosen = this.#chosen, number = field.valueAsNumber;
    switch (field.id) {
      case "model": chosen.model = field.value; break;
      case "size": chosen.size = field.value; break;
      case "amount": if (field.checkValidity()) chosen.amounts[chosen.size] = number; break;
      case "amount-height": if (field.checkValidity()) chosen.boxHeight = number; break;
      case "strength": chosen.strength = number; break;
      case "format": chosen.format = field.value; break;
      case "quality": if (field.checkValidity()) chosen.quality[chosen.format] = Number.isNaN(number) ? null : number; break;
    }
    this.#keep();
    this.#show(field);
  }

  #keep() {
    try {
      localStorage.setItem(KEPT_AS, JSON.stringify(this.#chosen));
    } catch {
      // Storage is full or forbidden: the settings last until the page is closed.
    }
  }

  /** Show the settings; the field that is being typed into is left alone. */
  #show(typed = null) {
    const chosen = this.#chosen, model = this.#model;
    const set = (id, value) => { if (byId(id) !== typed) byId(id).value = value; };
    set("model", chosen.model);
    set("size", chosen.size);
    set("strength", chosen.strength);
    set("format", chosen.format);
    set("quality", chosen.quality[chosen.format] ?? "");
    byId("strength-value").value = `${chosen.strength} %`;
    byId("size").options[0].text = `\u00d7${this.scaleOfModel}, the network's own`;
    byId("purpose").textContent = model ? this.#purpose(model) : "";
    this.#showAmount(set);
    const lossy = chosen.format in LOSSY;
    byId("quality-field").hidden = !lossy;
    byId("quality").disabled = !lossy;
    byId("quality").placeholder = LOSSY[chosen.format] ?? "";
    byId("summary").textContent = this.#inWords();
  }

  #showAmount(set) {
    const kind = this.#chosen.size, amount = AMOUNTS[kind], field = byId("amount"), height = byId("amount-height");
    byId("amounts").hidden = !amount;
    field.disabled = !amount;
    height.disabled = kind !== "box";
    height.hidden = byId("times").hidden = kind !== "box";
    if (!amount) return;
    Object.assign(field, { min: amount.least, max: amount.most, step: amount.step, ariaLabel: amount.label });
    set("amount", this.#amount(kind));
    set("amount-height", this.#chosen.boxHeight);
    byId("unit").textContent = amount.unit;
  }

  #purpose({ purpose, on_disk, bytes, licence }) {
    const size = bytes ? ` (${bytesInWords(bytes)})` : "";
    const text = purpose.charAt(0).toUpperCase() + purpose.slice(1);
    return `${text}. ${on_disk ? "On disk" : `Fetched when first used${size}`}; ${licence}.`;
  }

  #inWords() {
    const { model, strength, format } = this.#chosen;
    const words = [model, this.#sizeInWords()];
    if (strength < 100) words.push(`${strength} %`);
    if (format) words.push(FORMATS[format] ?? format);
    return words.join(", ");
  }

  #sizeInWords() {
    const kind = this.#chosen.size;
    switch (kind) {
      case "own": return `\u00d7${this.scaleOfModel}`;
      case "scale": return `\u00d7${this.#amount(kind)}`;
      case "box": return `in ${this.#amount(kind)} \u00d7 ${this.#chosen.boxHeight} px`;
      case "megapixels": return `${this.#amount(kind)} MP`;
      default: return kind in AMOUNTS ? `${kind.replace("_", " ")} ${this.#amount(kind)} px` : `\u00d7${kind}`;
    }
  }
}
