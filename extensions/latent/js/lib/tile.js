// The payload of one tile: header, side information, planes, rotation (docs/lin.md, "Payload of one tile").

import { BitReader, ByteReader, copy, crc32, digits } from "./bits.js";
import { must } from "./errors.js";
import { MARGIN, MoreWords, PlaneDecoder, planeArea } from "./planes.js";
import { inverse, side } from "./wavelet.js";

const f = Math.fround;
const NORM = [[1, 1], [1.0113, 1.0404], [0.9984, 0.9672], [1.0458, 1.0396], [1.0668, 1.0751], [1.0729, 1.0858], [1.0745, 1.0887]];
const COSINE = Float64Array.from({ length: 2049 }, (_, n) => Math.round(2 ** 20 * Math.cos((n * Math.PI) / 4096)) / 2 ** 20);

/** Sizes of one array in pixels: array `d` has half the rows and columns of the one before, rounded up. */
export const arraySide = (n, d) => Math.ceil(n / 2 ** d);

export function levelsOf(height, width) {
  return Math.max(3, Math.min(6, digits(Math.max(height, width)) - 3));
}

/**
 * Reads the header of a payload.
 *
 * @param {Uint8Array} bytes the payload, or its beginning
 * @param {number} bands number of bands of all arrays
 * @param {boolean} whole false where `bytes` may be a beginning only: then checksum and length are not looked at
 */
export function readHeader(bytes, bands, whole = true) {
  const reader = new ByteReader(bytes, "payload");
  must(reader.u8() === 0x53 && reader.u8() === 0x4c, "The payload is none of stac-latent-lin-1: it does not begin with SL.");
  const version = reader.u8();
  must(version === 1, `The payload is of version ${version} of the bitstream; this decoder reads version 1. A newer decoder is needed.`);
  const checksum = reader.u32();
  if (whole) must(crc32(bytes.subarray(7)) === checksum, "The payload is damaged: its CRC-32 differs.");
  const height = reader.u16();
  const width = reader.u16();
  const packed = reader.u8();
  const levels = packed & 15;
  must(height >= 1 && height <= 512 && width >= 1 && width <= 512, `The payload is damaged: a tile of ${height} x ${width} pixels.`);
  must(levels === levelsOf(height, width), `The payload is damaged: ${levels} levels for ${height} x ${width} pixels.`);
  const lanes = 1 << ((packed >> 4) & 7);
  must(lanes <= 8, `The payload is damaged: ${lanes} lanes.`);
  const step = reader.f32();
  must(step >= 2 ** -40 && step <= 2 ** 40, `The payload is damaged: a step of ${step}.`);
  let weights = null;
  if (packed & 128) {
    weights = Float32Array.from({ length: bands }, () => reader.f32());
    must(weights.every((w) => w >= 2 ** -20 && w <= 2 ** 20), "The payload is damaged: a weight of a band is out of range.");
  }
  const [sideBits, rawBits, words] = [reader.varint(), reader.varint(), reader.varint()];
  const sideBytes = Math.ceil(sideBits / 8);
  const rawBytes = Math.ceil(rawBits / 8);
  const body = reader.at + sideBytes + rawBytes + 4 * lanes;
  if (whole) must(bytes.length === body + 2 * words, `The payload is damaged: ${bytes.length} bytes instead of ${body + 2 * words}.`);
  return { height, width, levels, lanes, step, weights, sideBits, rawBits, words, at: reader.at, sideBytes, rawBytes, body, size: body + 2 * words };
}

/** A basis with rows rotated by angles, in float64. */
function rotated(start, m, bits) {
  const basis = start.slice();
  const precision = bits.bits(3) + 4;
  const rows = bits.bits(digits(m));
  must(rows <= m, "The payload is damaged: a basis of too many rows.");
  for (let i = 0; i < rows; i++) {
    const r = bits.bits(4);
    for (let j = i + 1; j < m; j++) {
      const q = bits.ones(24);
      const z = q === 24 ? bits.bits(17 + r) : q * 2 ** r + bits.bits(r);
      const angle = z % 2 ? -(z + 1) / 2 : z / 2;
      const magnitude = Math.abs(angle);
      must(magnitude <= 2 ** precision, "The payload is damaged: an angle of more than a quarter turn.");
      const n = magnitude * 2 ** (11 - precision);
      const c = COSINE[n];
      const s = angle < 0 ? -COSINE[2048 - n] : COSINE[2048 - n];
      for (let k = 0; k < m; k++) {
        const a = basis[i * m + k];
        const b = basis[j * m + k];
        basis[i * m + k] = c * a + s * b;
        basis[j * m + k] = c * b - s * a;
      }
    }
  }
  return basis;
}

/** The groups of a tile with what the side information says of them: basis and number of components. */
function readGroups(header, arrays, model, bits) {
  const groups = [];
  for (let g = 0; g <= header.levels; g++) {
    const level = g === 0 ? header.levels : header.levels - g + 1;
    const members = [];
    for (const [d, array] of arrays.entries()) {
      if (g > 0 && level - d < 1) continue;
      for (const band of array) members.push({ band, array: d });
    }
    const m = members.length;
    const last = groups.at(-1);
    const size = model.basisSize;
    const fitted = new Float64Array(m * m);
    for (let i = 0; i < m; i++) for (let j = 0; j < m; j++) {
      fitted[i * m + j] = model.basis ? model.basis[((g === 0 ? 0 : level) * size + i) * size + j] : Number(i === j);
    }
    const before = () => {
      must(last && last.members.length === m, "The payload is damaged: a basis of a group that has other bands.");
      return last.basis;
    };
    const kind = bits.bits(2);
    must(kind < 3, "The payload is damaged: an unknown kind of basis.");
    let basis = fitted;
    if (kind === 1) basis = before();
    if (kind === 2) basis = rotated(bits.bit() ? before() : fitted, m, bits);
    const components = [];
    for (let o = 0; o < (g === 0 ? 1 : 3); o++) {
      components.push(bits.bits(digits(m)));
      must(components[o] <= m, "The payload is damaged: more components than bands.");
    }
    groups.push({ level, members, basis, components, first: g === 0 });
  }
  must(bits.at === bits.count, "The payload is damaged: side information is left over.");
  return groups;
}

/** Height and width of the planes of one orientation of a group. */
function planeSize(header, group, orientation) {
  if (group.first) return [side(header.height, group.level), side(header.width, group.level)];
  const h = side(header.height, group.level - 1);
  const w = side(header.width, group.level - 1);
  const [lowH, lowW] = [Math.ceil(h / 2), Math.ceil(w / 2)];
  return [orientation === 0 ? lowH : h - lowH, orientation === 1 ? lowW : w - lowW];
}

/** Planes of one orientation of a group, turned back to bands and written into Mallat's layout. */
function rotateBack(header, group, orientation, planes, decoder, bands) {
  const [height, width] = planeSize(header, group, orientation);
  if (height === 0 || width === 0) return;
  const norm = NORM[group.first ? 0 : group.level][orientation === 2 ? 1 : 0];
  const factor = f(header.step / norm);
  const m = group.members.length;
  const targets = [];
  for (const [b, member] of group.members.entries()) {
    const band = bands[member.band];
    if (!band) continue;
    const row = new Float32Array(planes.length);
    for (let c = 0; c < row.length; c++) {
      row[c] = f(f(group.basis[c * m + b]) * factor);
      if (header.weights) row[c] = row[c] / header.weights[member.band];
    }
    const own = group.level - member.array;
    const y0 = group.first || orientation === 0 ? 0 : side(band.height, own);
    const x0 = group.first || orientation === 1 ? 0 : side(band.width, own);
    targets.push({ row, data: band.data, width: band.width, at: y0 * band.width + x0 });
  }
  // Most samples are zero: those that are not are listed once for all bands.
  const { value } = decoder;
  const places = new Int32Array(width);
  const samples = new Float32Array(width);
  for (let y = 0; y < height; y++) {
    for (const [c, plane] of planes.entries()) {
      const from = plane.at + (y + MARGIN) * plane.stride + MARGIN;
      let count = 0;
      for (let x = 0; x < width; x++) {
        const v = value[from + x];
        if (v !== 0) {
          places[count] = x;
          samples[count++] = v;
        }
      }
      if (count === 0) continue;
      for (let t = 0; t < targets.length; t++) {
        const target = targets[t];
        addRow(target.data, target.at + y * target.width, target.row[c], places, samples, count);
      }
    }
  }
}

function addRow(data, to, factor, places, samples, count) {
  for (let k = 0; k < count; k++) {
    const x = to + places[k];
    data[x] = data[x] + f(factor * samples[k]);
  }
}

/**
 * Decodes the coefficients of one tile down to `level`: 0 gives the samples themselves, 3 the low band of level 3.
 *
 * @param {Uint8Array} bytes a payload; or its beginning, with `partial`
 * @param {object} model the space: basis, basisSize, weights, counts, runs, signs
 * @param {number[][]} arrays bands of each array, finest first
 * @param {object} options `wanted` (set of bands; default all), `level` (0), `partial` (false),
 *   `keepDetails` (false; the details of finer levels are decoded, too, and stay beside the low band)
 * @returns {object} header, and for each band `{ data, height, width }` (null where it was not wanted) in the layout of its own array
 */
export function decodeTile(bytes, model, arrays, options = {}) {
  const { wanted = null, level = 0, partial = false, keepDetails = false } = options;
  const count = arrays.reduce((sum, array) => sum + array.length, 0);
  const header = readHeader(bytes, count, !partial);
  if (bytes.length < header.body) throw new MoreWords();
  const bits = new BitReader(bytes.subarray(header.at, header.at + header.sideBytes), header.sideBits, "payload");
  const groups = readGroups(header, arrays, model, bits);
  const rawAt = header.at + header.sideBytes;
  const raw = new BitReader(bytes.subarray(rawAt, rawAt + header.rawBytes), header.rawBits, "payload");
  const reader = new ByteReader(bytes, "payload");
  reader.at = rawAt + header.rawBytes;
  const states = Uint32Array.from({ length: header.lanes }, () => reader.u32());
  const available = Math.min(header.words, (bytes.length - header.body) >> 1);
  const words = new Uint16Array(copy(bytes, header.body, header.body + 2 * available).buffer);

  // Only the levels that the wanted result needs; of coarser arrays these are fewer.
  const stop = keepDetails ? 0 : level;
  const needed = groups.filter((g) => g.first || g.level > stop);
  let area = 0;
  let largest = 0;
  for (const group of needed) {
    for (const [o, components] of group.components.entries()) {
      const one = planeArea(...planeSize(header, group, o));
      area += one * components;
      largest = Math.max(largest, one);
    }
  }
  const decoder = new PlaneDecoder(model, states, words, raw, area, largest);
  const result = new Array(count).fill(null);
  for (const [d, array] of arrays.entries()) {
    for (const band of array) {
      if (wanted && !wanted.has(band)) continue;
      const h = arraySide(header.height, d);
      const w = arraySide(header.width, d);
      result[band] = { data: new Float32Array(h * w), height: h, width: w, array: d };
    }
  }
  let older = null;
  for (const [g, group] of needed.entries()) {
    const planes = [];
    for (const [o, components] of group.components.entries()) {
      const [height, width] = planeSize(header, group, o);
      planes.push([]);
      for (let c = 0; c < components; c++) {
        const first = c > 0 ? 1 : 0;
        const set = group.first ? first : 2 + 2 * (3 * (Math.min(group.level, 3) - 1) + o) + first;
        const own = planes[o];
        const near = {
          parent: g >= 2 ? older[o][c] : null,
          before: own[c - 1],
          other1: group.first || o === 0 ? own[c - 2] : planes[0][c],
          other2: o === 2 ? planes[1][c] : null,
        };
        own.push(decoder.plane(height, width, set, o, group.first, near));
      }
    }
    for (const [o, own] of planes.entries()) rotateBack(header, group, o, own, decoder, result);
    older = planes;
  }
  if (needed.length === groups.length) decoder.finish();
  for (const band of result) {
    if (!band) continue;
    inverse(band.data, band.height, band.width, header.levels - band.array, Math.max(0, level - band.array));
  }
  return { header, bands: result, wordsRead: decoder.wordsRead, bytesRead: header.body + 2 * decoder.wordsRead };
}

