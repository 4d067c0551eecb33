// The requests of the page. Addresses are relative, so that the page works below any path of a reverse proxy.

const NO_ANSWER = "The server does not answer";
const NO_JSON = "The server's answer is not JSON";
const PATIENCE_MS = 30000;

/** What the server refused, in its own words; `status` 0 means that it did not answer. */
export class ApiError extends Error {
  constructor(message, status, retrySeconds = null) {
    super(message);
    this.status = status;
    this.retrySeconds = retrySeconds;
  }
}

function refusal(status, text, retryAfter) {
  const seconds = Number.parseFloat(retryAfter ?? "");
  let message = `The server answered ${status}`;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // Something between, such as a reverse proxy, has answered in its own way: the number says enough.
  }
  return new ApiError(message, status, Number.isNaN(seconds) ? null : seconds);
}

async function request(path, options = {}) {
  let answer, text;
  try {
    answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS), ...options });
    text = await answer.text();
  } catch {
    throw new ApiError(NO_ANSWER, 0);
  }
  if (!answer.ok) throw refusal(answer.status, text, answer.headers.get("Retry-After"));
  return parsed(text);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError(NO_JSON, 0);
  }
}

export const models = () => request("api/models");
export const jobs = async () => (await request("api/jobs")).jobs;
export const remove = (id) => request(`api/jobs/${id}`, { method: "DELETE" });

/**
 * Send a file with its settings, and return its job. XMLHttpRequest, because fetch does not tell how much has been sent.
 * @param {(share: number) => void} onProgress
 * @param {AbortSignal} signal
 */
export function submit(file, name, fields, onProgress, signal) {
  const body = new FormData();
  for (const [field, value] of Object.entries(fields)) body.append(field, value);
  body.append("image", file, name);
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", "api/jobs");
    sending.upload.onprogress = (event) => onProgress(event.total ? Math.min(1, event.loaded / event.total) : 0);
    sending.onload = () => {
      const { status, responseText: text } = sending;
      if (status >= 300) reject(refusal(status, text, sending.getResponseHeader("Retry-After")));
      else resolve(text);
    };
    sending.onerror = () => reject(new ApiError(NO_ANSWER, 0));
    sending.onabort = () => reject(new ApiError("Cancelled", 0));
    signal.addEventListener("abort", () => sending.abort());
    sending.send(body);
  }).then(parsed);
}

export const addressOf = {
  events: (id) => `api/jobs/${id}/events`,
  result: (id) => `api/jobs/${id}/result`,
  thumbnail: (id) => `api/jobs/${id}/thumbnail`,
  source: (id) => `api/jobs/${id}/source`,
  preview: (id) => `api/jobs/${id}/preview`,
  tile: (id, side, level, x, y) => `api/jobs/${id}/tiles/${side}/${level}/${x}_${y}.jpg`,
  archive: (ids) => `api/archive?ids=${ids.join(",")}`,
};
