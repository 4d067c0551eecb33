// Takes in files: dropped, chosen, in folders, or pasted.

const IMAGE = /\.(jpe?g|jpe|jfif|png|tiff?|webp|avif|gif|bmp|dib|p[abgnp]m|hei[cf]|hif)$/i;

const visible = (name) => !name.startsWith(".");

async function entriesOf(directory) {
  const reader = directory.createReader(), all = [];
  for (;;) {
    // A reader hands out a hundred entries at a time, and none at the end.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return all;
    all.push(...some);
  }
}

const inOrder = (some, nameOf) => some.sort((a, b) => nameOf(a).localeCompare(nameOf(b), undefined, { numeric: true }));

async function filesBelow(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const files = [];
  for (const inner of inOrder(await entriesOf(entry), ({ name }) => name)) files.push(...(await filesBelow(inner)));
  return files;
}

/** Split the files of a folder into its images and the names of everything else. */
function imagesOf(files) {
  const images = files.filter(({ name }) => visible(name) && IMAGE.test(name));
  return { files: images, leftOut: files.filter((file) => !images.includes(file)).map(({ name }) => name) };
}

async function dropped(transfer) {
  const entries = [...transfer.items].filter(({ kind }) => kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const files = [], leftOut = [];
  for (const entry of entries) {
    if (entry === null) continue;
    if (entry instanceof File) files.push(entry);
    else if (entry.isFile) files.push(...(await filesBelow(entry)));
    else {
      const found = imagesOf(await filesBelow(entry));
      files.push(...found.files);
      leftOut.push(...found.leftOut);
    }
  }
  return { files, leftOut };
}

/** Call `take(files, leftOut)` for whatever is dropped on the page, chosen by its buttons, or pasted. */
export function takeFiles(take, failed) {
  const byId = (id) => document.getElementById(id);
  const sign = byId("drop-sign");
  let depth = 0;  // dragenter and dragleave come for every element that the pointer crosses
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  const showSign = (shown) => { depth = shown ? depth : 0; sign.hidden = !shown; };

  addEventListener("dragenter", (event) => { if (carriesFiles(event)) { depth += 1; showSign(true); } });
  addEventListener("dragleave", (event) => { if (carriesFiles(event) && --depth <= 0) showSign(false); });
  addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    showSign(false);
    dropped(event.dataTransfer).then(({ files, leftOut }) => take(files, leftOut), failed);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    take(files, []);
  });

  for (const [button, input] of [[byId("choose"), byId("files")], [byId("choose-folder"), byId("folder")]]) {
    button.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      const chosen = [...input.files];
      input.value = "";  // so that the same file can be chosen again
      const found = input.webkitdirectory ? imagesOf(inOrder(chosen, (file) => file.webkitRelativePath)) : { files: chosen, leftOut: [] };
      take(found.files, found.leftOut);
    });
  }
}
