// Numbers and states as people read them, in the words of the command line.

export const UNFINISHED = new Set(["waiting", "uploading", "queued", "running"]);

function rounded(number) {
  return number < 100 ? number.toFixed(1) : Math.round(number);
}

export function bytesInWords(bytes) {
  if (bytes < 1e3) return `${bytes} bytes`;
  if (bytes < 1e6) return `${Math.round(bytes / 1e3)} kB`;
  return bytes < 1e9 ? `${rounded(bytes / 1e6)} MB` : `${rounded(bytes / 1e9)} GB`;
}

export function secondsInWords(seconds) {
  if (seconds < 1) return "less than 1 s";
  if (seconds < 99.5) return `about ${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `about ${minutes} min`;
  const tens = Math.round(seconds / 600);
  return `about ${Math.floor(tens / 6)} h ${(tens % 6) * 10} min`;
}

export function sizeInWords({ width, height }) {
  return `${width} \u00d7 ${height} px`;
}

export function count(number, one, several) {
  return `${number} ${number === 1 ? one : several}`;
}

function amountOfPixels(done, total) {
  if (total < 1e6) return `${done.toLocaleString("en")} of ${total.toLocaleString("en")} px`;
  return `${rounded(done / 1e6)} of ${rounded(total / 1e6)} MP`;
}

function runningInWords(job) {
  if (job.fetching) {
    const { model, done, total } = job.fetching;
    return `Fetching ${model}: ${bytesInWords(done)} of ${total ? bytesInWords(total) : "an unknown size"}`;
  }
  if (!job.pixels_done) return "Starting";
  const left = job.seconds_left === null ? "" : `, ${secondsInWords(job.seconds_left)} left`;
  return amountOfPixels(job.pixels_done, job.pixels_total) + left;
}

function queuedInWords(job) {
  const place = job.place === 1 ? "Next" : job.place ? `Place ${job.place} in the queue` : "In the queue";
  return job.estimate_seconds === null ? place : `${place}, ${secondsInWords(job.estimate_seconds)}`;
}

/** Return why a file failed; its name, which errors begin with, stands beside it already. */
function reasonOf({ error, name }) {
  const reason = error?.message ?? "failed, and the server gave no reason";
  const short = reason.startsWith(`${name}: `) ? reason.slice(name.length + 2) : reason;
  return short.charAt(0).toUpperCase() + short.slice(1);
}

/** Return one line on where a file stands. */
export function stateInWords(item) {
  switch (item.state) {
    case "waiting": return item.full ? "Waits until the queue has a place" : "Waits to be sent";
    case "uploading": return `Sending, ${bytesInWords(item.sent * item.bytes)} of ${bytesInWords(item.bytes)}`;
    case "queued": return queuedInWords(item.job);
    case "running": return runningInWords(item.job);
    case "done": return `${sizeInWords(item.job.output)}, ${bytesInWords(item.job.output.bytes)}`;
    case "failed": return reasonOf(item);
    case "cancelled": return "Cancelled";
    default: return "The server no longer keeps it";
  }
}

/** Return how much of a file's present step is done, 0 to 1; null where that is not known. */
export function shareOf(item) {
  if (item.state === "uploading") return item.sent;
  if (item.state !== "running") return null;
  const { fetching, share, pixels_done } = item.job;
  if (fetching) return fetching.total ? fetching.done / fetching.total : null;
  return pixels_done ? share : null;
}
