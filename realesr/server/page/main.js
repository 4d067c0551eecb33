// Puts the page together: what is added is sent, followed, listed and shown.

import * as api from "./api.js";
import { takeFiles } from "./drop.js";
import { Follower } from "./events.js";
import { FileList } from "./files.js";
import { Items } from "./items.js";
import { Settings } from "./settings.js";
import { Uploads } from "./uploads.js";
import { Viewer } from "./viewer.js";
import { bytesInWords, count, sentence, UNFINISHED } from "./words.js";

const NAMES_SHOWN = 3;

const byId = (id) => document.getElementById(id);
const items = new Items();
const settings = new Settings();
const uploads = new Uploads(items);
const follower = new Follower(items, uploads);
const list = new FileList(items);
const viewer = new Viewer(settings);
const limits = { upload_bytes: Infinity };
let tellOffered;
const isOffered = new Promise((resolve) => { tellOffered = resolve; });  // networks, formats and limits are known

/** Return a name that does not turn the direction of the words around it. */
const isolated = (name) => `\u2068${name}\u2069`;

/** Show a line that stays until it is put away. */
function message(text) {
  const line = document.createElement("p"), close = document.createElement("button");
  Object.assign(close, { type: "button", className: "icon", title: "Put away", ariaLabel: "Put away this message", textContent: "\u00d7" });
  close.addEventListener("click", () => { line.remove(); showWhatThereIs(); });
  line.append(text, close);
  byId("messages").append(line);
  byId("files-section").hidden = false;
}

function banner(text) {
  byId("banner").textContent = text;
  byId("banner").hidden = !text;
}

function bannerOf(error) {
  banner(`${sentence(error.message)}. This page tries again every few seconds.`);
}

function names(all) {
  const shown = all.slice(0, NAMES_SHOWN).map(isolated).join(", ");
  return all.length > NAMES_SHOWN ? `${shown} and ${all.length - NAMES_SHOWN} more` : shown;
}

async function take(files, leftOut) {
  await isOffered;
  const large = files.filter(({ size }) => size > limits.upload_bytes);
  const fields = settings.fields();
  if (fields === null) return message(`${sentence(count(files.length, "photo was", "photos were"))} not added: correct the settings, and add them again`);
  for (const file of files) if (!large.includes(file)) items.addFile(file, file.name, fields);
  if (leftOut.length) message(`Left out ${count(leftOut.length, "file that is no photo", "files that are no photos")}: ${names(leftOut)}`);
  for (const { name, size } of large) {
    message(`${isolated(name)} has ${bytesInWords(size)}, and this server takes at most ${bytesInWords(limits.upload_bytes)}`);
  }
  if (files.length === 0 && leftOut.length === 0) message("There is no photo in that");
}

async function stop(item) {
  if (item.state === "waiting" || item.state === "uploading") return uploads.cancel(item);
  const unfinished = UNFINISHED.has(item.state);
  try {
    if (item.id !== null && item.state !== "gone") {
      const job = await api.remove(item.id);
      if (unfinished) return items.receive(job);
    }
    items.remove(item);
  } catch (error) {
    if (error.status === 404) items.change(item, { state: "gone" });
    else message(`${isolated(item.name)}: ${error.message}`);
  }
}

function again(item) {
  const fields = settings.fields();
  if (fields !== null) open(items.addFile(item.file, item.name, fields));
}

function open(item) {
  viewer.show(item);
  list.mark(item);
  showPlace();
}

function showPlace() {
  const { shown } = list, place = shown.indexOf(viewer.item);
  viewer.place(place > 0, place >= 0 && place < shown.length - 1);
}

/** Show the photo `step` places further in the list. */
function turn(step) {
  const { shown } = list, place = shown.indexOf(viewer.item);
  if (shown[place + step]) open(shown[place + step]);
}

function showWhatThereIs() {
  const empty = items.all.length === 0;
  if (byId("main").classList.contains("empty") !== empty) settings.makeRoom(empty);
  byId("main").classList.toggle("empty", empty);
  byId("files-section").hidden = empty && byId("messages").children.length === 0;
  if (viewer.item && !items.get(viewer.item.key)) {
    viewer.close();
    list.mark(null);
  }
  if (!viewer.item && !empty && !viewer.isOverlay) open(items.all[0]);
  showPlace();
}

let toSay = null;
function say(item) {
  // Spoken when several have ended, not for each of two hundred.
  clearTimeout(toSay);
  toSay = setTimeout(() => {
    const { unfinished } = items;
    byId("said").textContent = `${item.name}: ${item.state}. ${unfinished.length ? `${unfinished.length} to go.` : "All finished."}`;
  }, 1000);
}

const ended = new Set();
items.addEventListener("added", showWhatThereIs);
items.addEventListener("removed", showWhatThereIs);
items.addEventListener("changed", ({ detail: item }) => {
  if (item === viewer.item) viewer.update();
  if (item.state === "done") settings.noteOnDisk(item.job.model);
  if (UNFINISHED.has(item.state)) ended.delete(item.key);
  else if (!ended.has(item.key)) { ended.add(item.key); say(item); }
});

list.addEventListener("open", ({ detail }) => { open(detail); viewer.focus(); });
list.addEventListener("stop", ({ detail }) => stop(detail));
viewer.addEventListener("again", ({ detail }) => again(detail));
viewer.addEventListener("cancel", ({ detail }) => stop(detail));
viewer.addEventListener("turn", ({ detail }) => turn(detail));
viewer.addEventListener("closed", ({ detail }) => { list.mark(null); list.focus(detail); });
viewer.addEventListener("arranged", showWhatThereIs);
follower.addEventListener("answered", () => { banner(""); uploads.hold(false); });
follower.addEventListener("silent", ({ detail }) => { bannerOf(detail); uploads.hold(true); });
uploads.addEventListener("unreached", () => follower.look());

byId("cancel-all").addEventListener("click", () => {
  // Those that wait first, so that none of them starts when another ends.
  for (const item of items.unfinished.toReversed()) stop(item);
});
byId("clear").addEventListener("click", () => {
  const finished = items.all.filter((item) => !UNFINISHED.has(item.state)), done = finished.filter(({ state }) => state === "done");
  const question = `Remove ${count(finished.length, "photo", "photos")} from the list? The results of ${done.length} are deleted from the server.`;
  if (done.length === 0 || confirm(question)) for (const item of finished) stop(item);
});
addEventListener("beforeunload", (event) => {
  // What has been sent goes on by itself; what has not would be lost.
  if (items.all.some(({ state }) => state === "waiting" || state === "uploading")) event.preventDefault();
});

takeFiles(take, (error) => message(`The folder could not be read: ${error.message}`));

const here = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
byId("where").textContent = here ? "Enlarges photos on this computer. Nothing is sent anywhere." : `Enlarges photos on ${location.hostname}. They are sent nowhere else.`;
const pasteKey = navigator.platform.startsWith("Mac") ? "\u2318V" : "Ctrl+V";

async function begin() {
  try {
    const offered = await api.models();
    settings.offer(offered);
    Object.assign(limits, offered.limits);
    tellOffered();
    byId("limits").textContent = `At most ${bytesInWords(limits.upload_bytes)} each.`;
    const hasMouse = matchMedia("(any-pointer: fine)").matches;
    byId("add-title").textContent = hasMouse ? "Drop photos or a folder here" : "Choose photos to enlarge";
    byId("add-hint").firstChild.data = hasMouse ? `or paste a picture by ${pasteKey}. ` : "";
    await follower.look();
  } catch (error) {
    bannerOf(error);
    setTimeout(begin, 3000);
  }
}
begin();
