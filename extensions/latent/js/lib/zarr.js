// Zarr, version 3: groups, arrays, shards by ranges, and the codecs that stores of latents use.

import { crc32c } from "./bits.js";
import { LatentError, must } from "./errors.js";
import { parseJson } from "./json.js";
import { below } from "./source.js";
import { decompressZstd } from "./zstd.js";

const TYPES = {
  uint8: Uint8Array, int8: Int8Array, bool: Uint8Array, uint16: Uint16Array, int16: Int16Array, uint32: Uint32Array,
  int32: Int32Array, float32: Float32Array, float64: Float64Array,
};
const LARGEST = 2 ** 30;

/** Opens a group; arrays and groups below are looked up in its consolidated metadata, then by their own document. */
export async function openGroup(source, href) {
  const document = await metadata(source, href);
  must(document.node_type === "group", `${name(href)} is a Zarr ${document.node_type}; a group was expected.`);
  return new Group(source, href, document, document.consolidated_metadata?.metadata ?? null, "");
}

const name = (href) => href.split("?")[0];

async function metadata(source, href) {
  const bytes = await source.read(below(href, "zarr.json"));
  must(bytes, `${name(href)} has no zarr.json: there is no Zarr store of version 3.`);
  const document = parseJson(bytes, `${name(href)}/zarr.json`);
  must(document.zarr_format === 3, `${name(href)} is of Zarr format ${document.zarr_format}; this reader knows 3.`);
  return document;
}

class Group {
  constructor(source, href, document, consolidated, path) {
    Object.assign(this, { source, href, document, consolidated, path });
    this.attributes = document.attributes ?? {};
  }

  async #document(child) {
    const path = this.path ? `${this.path}/${child}` : child;
    const known = this.consolidated?.[path];
    return [known ?? (await metadata(this.source, below(this.href, child))), path];
  }

  /** Whether there is such an array or group: as far as consolidated metadata say. */
  has(child) {
    return this.consolidated === null ? null : (this.path ? `${this.path}/${child}` : child) in this.consolidated;
  }

  async group(child) {
    const [document, path] = await this.#document(child);
    must(document.node_type === "group", `${path} is no Zarr group.`);
    return new Group(this.source, below(this.href, child), document, this.consolidated, path);
  }

  async array(child) {
    const [document, path] = await this.#document(child);
    must(document.node_type === "array", `${path} is no Zarr array.`);
    return new ZarrArray(this.source, below(this.href, child), document, path);
  }
}

const product = (shape) => shape.reduce((a, b) => a * b, 1);

/** One array: chunks, whole or in shards. */
export class ZarrArray {
  constructor(source, href, document, path) {
    Object.assign(this, { source, href, path, shape: document.shape, attributes: document.attributes ?? {} });
    const dataType = document.data_type?.name ?? document.data_type;
    must(TYPES[dataType], `Array ${path} is of type ${dataType}, which this reader does not know.`);
    this.dataType = dataType;
    this.Type = TYPES[dataType];
    this.dimensions = document.dimension_names ?? [];
    const fill = document.fill_value;
    this.fill = { NaN: NaN, Infinity: Infinity, "-Infinity": -Infinity }[fill] ?? Number(fill);
    must(document.chunk_grid?.name === "regular", `Array ${path} has the chunk grid ${document.chunk_grid?.name}; this reader knows regular ones.`);
    this.outer = document.chunk_grid.configuration.chunk_shape;
    const encoding = document.chunk_key_encoding ?? { name: "default" };
    must(["default", "v2"].includes(encoding.name), `Array ${path} has the chunk keys ${encoding.name}; this reader knows default and v2.`);
    this.prefix = encoding.name === "default" ? "c" : null;
    this.separator = encoding.configuration?.separator ?? (encoding.name === "default" ? "/" : ".");
    for (const other of document.storage_transformers ?? []) throw new LatentError(`Array ${path} needs the storage transformer ${other.name}, which this reader does not know.`);
    const codecs = document.codecs.map((c) => (typeof c === "string" ? { name: c } : c));
    const shard = codecs.find((c) => c.name === "sharding_indexed");
    if (shard) {
      must(codecs.length === 1, `Array ${path} has codecs around its shards, which this reader does not know.`);
      this.shard = shard.configuration;
      this.chunk = this.shard.chunk_shape;
      this.codecs = this.shard.codecs;
      this.inShard = this.outer.map((n, i) => n / this.chunk[i]);
      must(this.inShard.every((n) => Number.isInteger(n) && n >= 1), `Array ${path}: a shard is no multiple of a chunk.`);
      const index = this.shard.index_codecs.map((c) => c.name).join(",");
      must(index === "bytes,crc32c" || index === "bytes", `Array ${path} has shard indexes with the codecs ${index}; this reader knows bytes and crc32c.`);
      this.indexChecked = index === "bytes,crc32c";
      this.indexes = new Map();
    } else {
      this.chunk = this.outer;
      this.codecs = codecs;
    }
    must(product(this.chunk) * this.Type.BYTES_PER_ELEMENT <= LARGEST, `Array ${path} has chunks of more than ${LARGEST} bytes.`);
    this.grid = this.shape.map((n, i) => Math.ceil(n / this.chunk[i]));
  }

  key(place) {
    const parts = this.prefix === null ? place : [this.prefix, ...place];
    return below(this.href, parts.join(this.separator));
  }

  /** Where the chunk lies: address and range (null: the whole object); null if it is not stored. */
  async locate(place) {
    if (!this.shard) return { href: this.key(place), range: null };
    const outer = place.map((n, i) => Math.floor(n / this.inShard[i]));
    const href = this.key(outer);
    if (!this.indexes.has(href)) {
      const reading = this.#index(href);
      reading.catch(() => this.indexes.delete(href));
      this.indexes.set(href, reading);
    }
    const index = await this.indexes.get(href);
    if (!index) return null;
    let at = 0;
    for (const [i, n] of place.entries()) at = at * this.inShard[i] + (n % this.inShard[i]);
    const [offset, length] = [index[2 * at], index[2 * at + 1]];
    if (offset === 0xffffffffffffffffn && length === 0xffffffffffffffffn) return null;
    must(offset < 2n ** 52n && length < BigInt(LARGEST), `The index of a shard of ${this.path} is damaged: a chunk of ${length} bytes.`);
    return { href, range: { offset: Number(offset), length: Number(length) } };
  }

  async #index(href) {
    const size = product(this.inShard) * 16 + (this.indexChecked ? 4 : 0);
    const range = this.shard.index_location === "start" ? { offset: 0, length: size } : { suffix: size };
    const bytes = await this.source.read(href, range);
    if (!bytes) return null;
    must(bytes.length === size, `The index of a shard of ${this.path} is cut short: ${bytes.length} of ${size} bytes.`);
    const body = this.indexChecked ? checked(bytes, `The index of a shard of ${this.path}`) : bytes;
    const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
    return BigUint64Array.from({ length: body.length / 8 }, (_, i) => view.getBigUint64(8 * i, true));
  }

  /** The stored bytes of a chunk, or those before `most` and from `from` on; null if there are none. */
  async readStored(place, most = Infinity, signal = undefined, from = 0) {
    const where = await this.locate(place);
    if (!where) return null;
    const { href, range } = where;
    if (!range) return this.source.read(href, null, signal);
    const length = Math.min(range.length, most) - from;
    const bytes = await this.source.read(href, { offset: range.offset + from, length }, signal);
    must(bytes && bytes.length === length, `A chunk of ${this.path} is cut short.`);
    return bytes;
  }

  /** Codecs that stand between bytes and a serializer: undone, the last first. */
  async unpack(bytes, limit) {
    for (const codec of this.codecs.slice(1).reverse()) {
      if (codec.name === "crc32c") bytes = checked(bytes, `A chunk of ${this.path}`);
      else if (codec.name === "zstd") bytes = decompressZstd(bytes, limit);
      else if (codec.name === "gzip") bytes = await inflate(bytes, "gzip", limit);
      else throw new LatentError(`Array ${this.path} needs the codec ${codec.name}, which this reader does not know.`);
    }
    return bytes;
  }

  /** One chunk as numbers, of the full size of a chunk; null if it is not stored. */
  async readChunk(place, signal = undefined) {
    const stored = await this.readStored(place, Infinity, signal);
    if (!stored) return null;
    const serializer = this.codecs[0];
    must(serializer?.name === "bytes", `Array ${this.path} needs the codec ${serializer?.name}, which this reader does not know here.`);
    const width = this.Type.BYTES_PER_ELEMENT;
    const size = product(this.chunk) * width;
    const bytes = await this.unpack(stored, size);
    must(bytes.length === size, `A chunk of ${this.path} has ${bytes.length} bytes; ${size} were expected.`);
    const own = Uint8Array.from(bytes);
    if (serializer.configuration?.endian === "big" && width > 1) for (let i = 0; i < size; i += width) own.subarray(i, i + width).reverse();
    return new this.Type(own.buffer);
  }

  /** The chunk's place in the array: its first index and its shape without what lies beyond the end. */
  extent(place) {
    const start = place.map((n, i) => n * this.chunk[i]);
    return { start, shape: start.map((n, i) => Math.min(this.chunk[i], this.shape[i] - n)) };
  }
}

/** One chip of an array of many: the array without its first axis. */
export class Chip {
  constructor(array, index) {
    must(index < array.shape[0], `There is no chip ${index} in ${array.path}; it has ${array.shape[0]}.`);
    const rest = (list) => list.slice(1);
    Object.assign(this, {
      array, index, path: array.path, shape: rest(array.shape), chunk: rest(array.chunk), grid: rest(array.grid), codecs: array.codecs,
      Type: array.Type, within: index % array.chunk[0], outer: Math.floor(index / array.chunk[0]),
    });
  }

  locate(place) { return this.array.locate([this.outer, ...place]); }
  readStored(place, ...more) { return this.array.readStored([this.outer, ...place], ...more); }
  unpack(bytes, limit) { return this.array.unpack(bytes, limit); }

  async readChunk(place, signal = undefined) {
    const chunk = await this.array.readChunk([this.outer, ...place], signal);
    const size = product(this.chunk);
    return chunk && chunk.slice(this.within * size, (this.within + 1) * size);
  }

  extent(place) { return ZarrArray.prototype.extent.call(this, place); }
}

function checked(bytes, what) {
  must(bytes.length >= 4, `${what} is cut short.`);
  const body = bytes.subarray(0, bytes.length - 4);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  must(crc32c(body) === view.getUint32(body.length, true), `${what} is damaged: its CRC-32C differs.`);
  return body;
}

/** What a stream of `deflate` (zlib) or `gzip` inflates to, at most `limit` bytes. */
export async function inflate(bytes, format, limit) {
  const parts = [];
  let size = 0;
  try {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format));
    for (const reader = stream.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.length;
      if (size > limit) {
        await reader.cancel();
        break;
      }
      parts.push(value);
    }
  } catch (error) {
    throw new LatentError(`A ${format} stream is damaged: ${error.message}.`);
  }
  must(size <= limit, `A ${format} stream is larger than it may be.`);
  const out = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
