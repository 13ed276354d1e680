// Where bytes come from: addresses, by HTTP. Files are read by lib/node.js.

import { LatentError } from "./errors.js";

/** An address relative to a document; the query of a signed address is carried over. */
export function resolve(base, href) {
  const url = new URL(href, base);
  const from = new URL(base);
  if (!url.search && from.search && url.origin === from.origin) url.search = from.search;
  return url.href;
}

/** An address below a folder. */
export function below(folder, path) {
  const url = new URL(folder);
  url.pathname = `${url.pathname.replace(/\/$/, "")}/${path}`;
  return url.href;
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Reads by HTTP; counts requests and bytes. Servers that ignore ranges are read whole, once. */
export class HttpSource {
  constructor(options = {}) {
    this.fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
    this.atOnce = options.atOnce ?? 12;
    this.whole = new Map();
    this.noSuffix = new Set(); // origins that do not know ranges counted from the end
    this.requests = 0;
    this.bytes = 0;
    this.active = 0;
    this.queue = [];
  }

  async #turn(signal) {
    if (this.active >= this.atOnce) await new Promise((go) => this.queue.push(go));
    this.active++;
    signal?.throwIfAborted();
  }

  #done() {
    this.active--;
    this.queue.shift()?.();
  }

  /**
   * Bytes of an address, or null if there is nothing.
   *
   * @param {string} href
   * @param {{offset?: number, length?: number, suffix?: number} | null} range
   * @param {AbortSignal} [signal]
   */
  async read(href, range = null, signal = undefined) {
    if (range && this.whole.has(href)) return cut(await this.whole.get(href), range);
    try {
      await this.#turn(signal);
      return await this.#ask(href, range, signal);
    } finally {
      this.#done();
    }
  }

  /** The last bytes as a range from the start: some servers and stores know no other. */
  async #fromStart(href, suffix, signal) {
    this.requests++;
    const answer = await this.fetch(href, { method: "HEAD", signal });
    if (answer.status === 404) return null;
    const size = Number(answer.headers.get("content-length"));
    if (!answer.ok || !(size > 0)) throw new LatentError(`${href.split("?")[0]}: the server does not say how long it is, and knows no ranges from the end.`);
    const length = Math.min(suffix, size);
    return { offset: size - length, length };
  }

  async #ask(href, range, signal) {
    const headers = {};
    if (range?.suffix && this.noSuffix.has(new URL(href).origin)) {
      range = await this.#fromStart(href, range.suffix, signal);
      if (!range) return null;
    }
    if (range?.suffix) headers.Range = `bytes=-${range.suffix}`;
    else if (range) headers.Range = `bytes=${range.offset}-${range.offset + range.length - 1}`;
    const safe = href.split("?")[0];
    for (let attempt = 0; ; attempt++) {
      this.requests++;
      let answer;
      try {
        answer = await this.fetch(href, { headers, signal });
      } catch (error) {
        if (signal?.aborted) throw error;
        if (attempt < 2) {
          await pause(300 * 4 ** attempt);
          continue;
        }
        throw new LatentError(`${safe} cannot be read: ${error.message}. The server may be away, or may not allow other sites to read it (CORS).`);
      }
      if (answer.status === 404) return null;
      if ((answer.status === 429 || answer.status >= 500) && attempt < 2) {
        await pause(300 * 4 ** attempt);
        continue;
      }
      if (answer.status === 416 && range.suffix) {
        this.noSuffix.add(new URL(href).origin);
        return this.#ask(href, await this.#fromStart(href, range.suffix, signal), signal);
      }
      if (answer.status === 416) throw new LatentError(`${safe} is shorter than it should be: the server has no bytes ${headers.Range}.`);
      if (!answer.ok) throw new LatentError(`${safe} cannot be read: the server answers ${answer.status}.`);
      const bytes = new Uint8Array(await answer.arrayBuffer());
      this.bytes += bytes.length;
      if (!range) return bytes;
      if (answer.status === 200) {
        this.whole.set(href, bytes); // the server ignores ranges
        return cut(bytes, range);
      }
      if (range.suffix ? bytes.length > range.suffix : bytes.length > range.length) {
        throw new LatentError(`${safe}: the server gave ${bytes.length} bytes, more than it was asked for.`);
      }
      return bytes;
    }
  }
}

/** Part of bytes that are there. */
export function cut(bytes, range) {
  if (range.suffix) return bytes.subarray(Math.max(0, bytes.length - range.suffix));
  return bytes.subarray(range.offset, range.offset + range.length);
}
