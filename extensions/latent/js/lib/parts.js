// Payloads as a store holds them: one tile, one tile in parts, or several tiles (docs/lin.md).

import { ByteReader, crc32 } from "./bits.js";
import { must } from "./errors.js";
import { arraySide, decodeTile } from "./tile.js";
import { forward, inverse, side } from "./wavelet.js";

/** The run in which each of `n` rows or columns lies, and the number of runs. */
function readRuns(reader, n) {
  const empty = reader.varint();
  must(empty <= 7, "The payload is damaged: more than seven empty runs.");
  const length = reader.varint();
  const run = new Int32Array(n);
  let last = empty;
  if (length > 0) {
    const first = reader.varint();
    must(first >= 1 && first <= length, "The payload is damaged: a first run of a wrong length.");
    for (let i = 0; i < n; i++) run[i] = last = i < first ? empty : empty + 1 + Math.floor((i - first) / length);
  } else {
    const bits = reader.take(Math.ceil((n - 1) / 8));
    run[0] = last;
    for (let i = 1; i < n; i++) {
      last += (bits[(i - 1) >> 3] >> (7 - ((i - 1) & 7))) & 1;
      run[i] = last;
    }
  }
  return { run, count: last + 1 };
}

/** A tile in parts: the pixels of each band, in float32 samples. */
function decodeParts(bytes, model, count, wanted) {
  const reader = new ByteReader(bytes, "payload");
  reader.skip(3);
  const version = reader.u8();
  must(version === 1, `The payload is of version ${version} of tiles in parts; this decoder reads version 1. A newer decoder is needed.`);
  must(reader.u32() === crc32(bytes.subarray(8)), "The payload is damaged: its CRC-32 differs.");
  const [height, width, number] = [reader.varint(), reader.varint(), reader.varint()];
  must(height >= 1 && height <= 512 && width >= 1 && width <= 512, `The payload is damaged: a tile of ${height} x ${width} pixels.`);
  must(number >= 1 && number <= count, `The payload is damaged: ${number} parts for ${count} bands.`);
  const parts = [];
  const seen = new Set();
  for (let k = 0; k < number; k++) {
    const arrays = [];
    const arrayCount = reader.varint();
    must(arrayCount >= 1 && arrayCount <= 4, `The payload is damaged: ${arrayCount} arrays in a part.`);
    for (let d = 0; d < arrayCount; d++) {
      const members = reader.varint();
      must(members >= 1 && members <= count, `The payload is damaged: ${members} bands in an array.`);
      arrays.push(Array.from({ length: members }, () => reader.varint()));
      for (const band of arrays[d]) {
        must(band < count && !seen.has(band), `The payload is damaged: band ${band} is there twice, or unknown.`);
        seen.add(band);
      }
    }
    parts.push({ arrays, rows: readRuns(reader, height), columns: readRuns(reader, width), size: reader.varint() });
  }
  must(seen.size === count, "The payload is damaged: a band is in no part.");
  const result = new Array(count).fill(null);
  for (const { arrays, rows, columns, size } of parts) {
    const payload = reader.take(size);
    const order = arrays.flat();
    if (wanted && !order.some((band) => wanted.has(band))) continue;
    const whole = arrays.length === 1 && order.length === count && order.every((band, i) => band === i);
    let next = 0;
    const local = arrays.map((array) => array.map(() => next++));
    const chosen = wanted ? new Set(order.flatMap((band, i) => (wanted.has(band) ? [i] : []))) : null;
    const tile = decodeTile(payload, whole ? model : { ...model, basis: null }, local, { wanted: chosen });
    must(tile.header.height === rows.count && tile.header.width === columns.count, "The payload is damaged: a part of another size than its runs.");
    for (const [i, band] of order.entries()) {
      const own = tile.bands[i];
      if (!own) continue;
      const data = new Float32Array(height * width);
      for (let y = 0; y < height; y++) {
        const row = (rows.run[y] >> own.array) * own.width;
        for (let x = 0; x < width; x++) data[y * width + x] = own.data[row + (columns.run[x] >> own.array)];
      }
      result[band] = { data, height, width, array: 0 };
    }
  }
  must(reader.at === bytes.length, "The payload is damaged: bytes are left over.");
  return { height, width, bands: result };
}

const isParts = (bytes) => bytes.length > 3 && bytes[0] === 0x53 && bytes[1] === 0x4c && bytes[2] === 0x52;

/** The low band of `level` of samples in Mallat's layout, closely packed. */
function corner(band, level) {
  const h = side(band.height, level);
  const w = side(band.width, level);
  if (w === band.width) return { data: band.data.subarray(0, h * w), height: h, width: w };
  const data = new Float32Array(h * w);
  for (let y = 0; y < h; y++) data.set(band.data.subarray(y * band.width, y * band.width + w), y * w);
  return { data, height: h, width: w };
}

/** Samples of bands as the low band of `level`, of the finest array. */
export function coarse(bands, level) {
  if (level === 0) return bands;
  return bands.map((band) => {
    if (!band) return null;
    const own = Math.max(0, level - band.array);
    forward(band.data, band.height, band.width, own);
    return { ...corner(band, own), array: band.array };
  });
}

/**
 * Decodes the payload of one chunk to samples of each band.
 *
 * @param {Uint8Array} bytes
 * @param {object} model
 * @param {number[][]} arrays bands of each array of the lattice
 * @param {object} options `wanted` (set of bands), `level` (0: samples; n: the low band of level n, 2^n times the mean),
 *   `partial` (the bytes may be a beginning: `MoreWords` is thrown where they do not suffice)
 * @returns {{height: number, width: number, bands: ({data: Float32Array, height: number, width: number} | null)[]}}
 */
export function decodePayload(bytes, model, arrays, options = {}) {
  const { wanted = null, level = 0 } = options;
  if (isParts(bytes)) {
    const count = arrays.reduce((sum, array) => sum + array.length, 0);
    must(arrays.length === 1, "The payload is damaged: a tile in parts among several native grids.");
    const tile = decodeParts(bytes, model, count, wanted);
    for (const band of tile.bands) {
      if (!band) continue;
      forward(band.data, band.height, band.width, 3);
      inverse(band.data, band.height, band.width, 3, 0);
    }
    return { ...tile, bands: coarse(tile.bands, level) };
  }
  const tile = decodeTile(bytes, model, arrays, options);
  const { height, width } = tile.header;
  const bands = tile.bands.map((band) => band && { ...corner(band, Math.max(0, level - band.array)), array: band.array });
  return { height, width, bands, bytesRead: tile.bytesRead };
}

/** Coefficients of the three finest levels, in Mallat's layout: what a latent cube holds. */
export function decodeCoefficients(bytes, model, arrays) {
  if (isParts(bytes)) {
    const count = arrays.reduce((sum, array) => sum + array.length, 0);
    const tile = decodeParts(bytes, model, count, null);
    for (const band of tile.bands) forward(band.data, band.height, band.width, 3);
    return tile;
  }
  const tile = decodeTile(bytes, model, arrays, { level: 3, keepDetails: true });
  return { height: tile.header.height, width: tile.header.width, bands: tile.bands };
}

/** A field of one or several tiles (`SLT`): samples of each band. */
export function decodeField(bytes, model, arrays, options = {}) {
  const several = bytes.length > 4 && bytes[0] === 0x53 && bytes[1] === 0x4c && bytes[2] === 0x54;
  if (!several) return decodePayload(bytes, model, arrays, options);
  const reader = new ByteReader(bytes, "field");
  reader.skip(3);
  const version = reader.u8();
  must(version === 1, `The field is of version ${version} of several tiles; this decoder reads version 1. A newer decoder is needed.`);
  const [rows, columns, tileRows, tileColumns] = [reader.u32(), reader.u32(), reader.u8(), reader.u8()];
  must(tileRows >= 1 && tileRows <= 64 && tileColumns >= 1 && tileColumns <= 64, "The field is damaged: tiles of a wrong size.");
  const down = Math.ceil(rows / tileRows);
  const across = Math.ceil(columns / tileColumns);
  must(down * across * 4 <= bytes.length, "The field is damaged: more tiles than bytes.");
  const sizes = Array.from({ length: down * across }, () => reader.u32());
  const [height, width] = [rows * 8, columns * 8];
  const bands = arrays.flatMap((array, d) => array.map(() => {
    const [h, w] = [arraySide(height, d), arraySide(width, d)];
    return { data: new Float32Array(h * w), height: h, width: w, array: d };
  }));
  for (let i = 0; i < down * across; i++) {
    const tile = decodePayload(reader.take(sizes[i]), model, arrays);
    const [y0, x0] = [Math.floor(i / across) * tileRows * 8, (i % across) * tileColumns * 8];
    for (const [b, band] of bands.entries()) {
      const part = tile.bands[b];
      const [y, x] = [y0 >> band.array, x0 >> band.array];
      for (let r = 0; r < part.height; r++) {
        band.data.set(part.data.subarray(r * part.width, (r + 1) * part.width), (y + r) * band.width + x);
      }
    }
  }
  must(reader.at === bytes.length, "The field is damaged: bytes are left over.");
  return { height, width, bands };
}
