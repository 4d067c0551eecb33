// Numbers and states as people read them, in the words of the command line.

export const UNFINISHED = new Set(["waiting", "uploading", "queued", "running"]);

const NBSP = "\u00a0";  // a number and its unit stay on one line

function rounded(number) {
  return number < 100 ? number.toFixed(1) : Math.round(number);
}

export function bytesInWords(bytes) {
  if (bytes < 1e3) return `${bytes}${NBSP}bytes`;
  if (bytes < 1e6) return `${Math.round(bytes / 1e3)}${NBSP}kB`;
  return bytes < 1e9 ? `${rounded(bytes / 1e6)}${NBSP}MB` : `${rounded(bytes / 1e9)}${NBSP}GB`;
}

export function secondsInWords(seconds) {
  if (seconds < 1) return `less than 1${NBSP}s`;
  if (seconds < 99.5) return `about ${Math.round(seconds)}${NBSP}s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `about ${minutes}${NBSP}min`;
  const tens = Math.round(seconds / 600);
  return `about ${Math.floor(tens / 6)}${NBSP}h ${(tens % 6) * 10}${NBSP}min`;
}

/** Return a time that was measured. */
export function measuredInWords(seconds) {
  if (seconds >= 99.5) return secondsInWords(seconds);
  return `${seconds < 1 ? Number(seconds.toPrecision(2)) : seconds.toFixed(1)}${NBSP}s`;
}

export function sizeInWords({ width, height }) {
  return `${width} \u00d7 ${height}${NBSP}px`;
}

export function count(number, one, several) {
  return `${number} ${number === 1 ? one : several}`;
}

function amountOfPixels(done, total) {
  if (total < 1e6) return `${done.toLocaleString("en")} of ${total.toLocaleString("en")}${NBSP}px`;
  return `${rounded(done / 1e6)} of ${rounded(total / 1e6)}${NBSP}MP`;
}

function runningInWords(job) {
  if (job.fetching) {
    const { model, done, total } = job.fetching;
    return `Fetching ${model}: ${bytesInWords(done)} of ${total ? bytesInWords(total) : "an unknown size"}`;
  }
  const seconds = job.seconds_left ?? job.estimate_seconds, left = seconds === null ? "" : `, ${secondsInWords(seconds)} left`;
  return (job.pixels_done ? amountOfPixels(job.pixels_done, job.pixels_total) : "Starting") + left;
}

function queuedInWords(job) {
  const place = job.place === 1 ? "Next" : job.place ? `Place ${job.place} in the queue` : "In the queue";
  return job.estimate_seconds === null ? place : `${place}, ${secondsInWords(job.estimate_seconds)}`;
}

/** Return why a file failed; its name, which errors begin with, stands beside it already. */
function reasonOf({ error, name }) {
  const reason = error?.message ?? "failed, and the server gave no reason";
  if (reason.startsWith(`${name}: `)) return sentence(reason.slice(name.length + 2));
  return reason.startsWith(name) ? reason : sentence(reason);
}

/** Return a message with a capital letter, unless it begins with something else than a word: an address, a file. */
export function sentence(text) {
  return text.replace(/^[a-z]+(?= )/, (word) => word.charAt(0).toUpperCase() + word.slice(1));
}

/** Return one line on where a file stands. */
export function stateInWords(item) {
  switch (item.state) {
    case "waiting": return item.refusal ? `Waits to be sent: ${item.refusal}` : "Waits to be sent";
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
