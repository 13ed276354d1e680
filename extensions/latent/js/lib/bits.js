// Checksums, variable-length integers and single bits.

import { LatentError, must } from "./errors.js";

function crcTables(polynomial) {
  // Four tables, so that four bytes are taken at a time.
  const tables = [0, 1, 2, 3].map(() => new Int32Array(256));
  for (let n = 0; n < 256; n++) {
    let c = n;
    for (let k = 0; k < 8; k++) c = c & 1 ? polynomial ^ (c >>> 1) : c >>> 1;
    tables[0][n] = c;
  }
  for (let n = 0; n < 256; n++) {
    for (let t = 1; t < 4; t++) tables[t][n] = (tables[t - 1][n] >>> 8) ^ tables[0][tables[t - 1][n] & 255];
  }
  return tables;
}

function crc([t0, t1, t2, t3], bytes) {
  let c = -1;
  let i = 0;
  for (; i + 4 <= bytes.length; i += 4) {
    c ^= bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24);
    c = t3[c & 255] ^ t2[(c >>> 8) & 255] ^ t1[(c >>> 16) & 255] ^ t0[c >>> 24];
  }
  for (; i < bytes.length; i++) c = t0[(c ^ bytes[i]) & 255] ^ (c >>> 8);
  return ~c >>> 0;
}

const ZLIB = crcTables(0xedb88320);
const CASTAGNOLI = crcTables(0x82f63b78);

/** CRC-32 of zlib. */
export const crc32 = (bytes) => crc(ZLIB, bytes);

/** CRC-32C (Castagnoli), that of the Zarr codec `crc32c`. */
export const crc32c = (bytes) => crc(CASTAGNOLI, bytes);

/** Reads numbers from bytes, one after the other. */
export class ByteReader {
  constructor(bytes, what) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
    this.what = what;
  }

  skip(count) {
    const at = this.at;
    must(at + count <= this.bytes.length, `The ${this.what} is cut short: ${this.bytes.length} bytes.`);
    this.at += count;
    return at;
  }

  u8() { return this.bytes[this.skip(1)]; }
  u16() { return this.view.getUint16(this.skip(2), true); }
  u32() { return this.view.getUint32(this.skip(4), true); }
  f32() { return this.view.getFloat32(this.skip(4), true); }

  take(count) {
    const at = this.skip(count);
    return this.bytes.subarray(at, at + count);
  }

  varint() {
    let value = 0;
    for (let k = 0; k < 5; k++) {
      const byte = this.u8();
      value += (byte & 127) * 2 ** (7 * k);
      if (byte < 128) return value;
    }
    throw new LatentError(`The ${this.what} is damaged: a number of more than five bytes.`);
  }
}

/** Reads bits, the highest of a byte first. */
export class BitReader {
  constructor(bytes, count, what) {
    this.bytes = bytes;
    this.count = count;
    this.at = 0;
    this.what = what;
  }

  bit() {
    if (this.at >= this.count) throw new LatentError(`The ${this.what} is damaged: its bits end early.`);
    const bit = (this.bytes[this.at >> 3] >> (7 - (this.at & 7))) & 1;
    this.at++;
    return bit;
  }

  bits(count) {
    let value = 0;
    for (let k = 0; k < count; k++) value = value * 2 + this.bit();
    return value;
  }

  /** The number of ones before a zero, at most `limit`; after `limit` ones there is no zero. */
  ones(limit) {
    let count = 0;
    while (count < limit && this.bit()) count++;
    return count;
  }
}

/** Number of binary digits of a whole number. */
export const digits = (n) => (n < 2 ** 31 ? 32 - Math.clz32(n) : Math.floor(Math.log2(n)) + 1);

/** A copy of some bytes in a buffer of its own (`slice` of a Node Buffer is none). */
export const copy = (bytes, from, to) => Uint8Array.prototype.slice.call(bytes, from, to);
