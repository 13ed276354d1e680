// Files and addresses, in Node.

import { open, readFile } from "node:fs/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { LatentError } from "./errors.js";
import { HttpSource } from "./source.js";

/** A path or an address as an address. */
export const addressOf = (place) => (/^[a-z][a-z0-9+.-]+:\/\//i.test(place) ? place : pathToFileURL(place).href);

/** Reads files by ranges, and addresses as `HttpSource` does. */
export class NodeSource extends HttpSource {
  async read(href, range = null, signal = undefined) {
    if (!href.startsWith("file:")) return super.read(href, range, signal);
    let path;
    this.requests++;
    try {
      path = fileURLToPath(href);
      const bytes = range ? await part(path, range) : new Uint8Array(await readFile(path));
      this.bytes += bytes.length;
      return bytes;
    } catch (error) {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
      throw new LatentError(`${path ?? href} cannot be read: ${error.message}.`);
    }
  }
}

async function part(path, range) {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    const offset = range.suffix ? Math.max(0, size - range.suffix) : range.offset;
    const length = Math.max(0, Math.min(range.suffix ?? range.length, size - offset));
    const bytes = new Uint8Array(length);
    const { bytesRead } = await file.read(bytes, 0, length, offset);
    return bytes.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
