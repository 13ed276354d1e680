// Residuals: from the pixels that a tile decodes to, to pixels within an error bound (spec/residual.md).

import { BitReader, ByteReader, copy, crc32 } from "./bits.js";
import { LatentError, must } from "./errors.js";
import { arrayOf, roundEven } from "./pixels.js";
import { BUCKETS, Tables } from "./planes.js";
import { inflate } from "./zarr.js";

const TOKENS = 53;
const BINS = 59;
const FAR = [2, 1, 2];
const NEARLY = 1 - 2 ** -20;
const MARGIN = { float32: 2 ** -22, float64: 2 ** -50 };
const RANGE = { uint8: [0, 255], int8: [-128, 127], uint16: [0, 65535], int16: [-32768, 32767], uint32: [0, 2 ** 32 - 1], int32: [-(2 ** 31), 2 ** 31 - 1] };

const START = Array.from({ length: TOKENS }, (_, t) => (t < 13 ? t : t % 2 ? 2 ** (4 + (t - 13) / 2) : 3 * 2 ** (3 + (t - 14) / 2)));
const EXTRA = START.slice(0, -1).map((start, t) => Math.floor(Math.log2(START[t + 1] - start)));
const SHIFT = Array.from({ length: BINS }, (_, bin) => (bin === BINS - 1 ? 4 : Math.max(0, Math.floor((bin - 1) / 2) - 11)));

/** x^n as a product of floats in the stated order. */
function power(x, n) {
  let product = 1;
  for (; n > 0; n = Math.floor(n / 2)) {
    if (n % 2 === 1) product *= x;
    x *= x;
  }
  return product;
}

const FIRST = (() => {
  const counts = new Uint16Array(BINS * TOKENS);
  for (let bin = 0; bin < BINS; bin++) {
    let middle = 0.01;
    if (bin === BINS - 1) middle = 1024;
    else if (bin > 0) middle = (2 ** Math.floor(bin / 2) * (bin % 2 ? 1.189207115002721 : 0.8408964152537145)) / 256;
    const x = middle / (1 + middle);
    const scale = 2 ** SHIFT[bin];
    for (let t = 0; t < TOKENS - 1; t++) {
      counts[bin * TOKENS + t] = Math.max(1, roundEven(256 * (power(x, START[t] * scale) - power(x, START[t + 1] * scale))));
    }
    counts[bin * TOKENS + TOKENS - 1] = 1;
  }
  return counts;
})();

/** CRC-32 of the counts that tables begin with; the page says f2a01256. */
export const firstCountsChecksum = () => crc32(new Uint8Array(FIRST.buffer));

async function exactly(bytes, size, what) {
  const out = await inflate(bytes, "deflate", size);
  must(out.length === size, `The residual is damaged: its ${what} inflate to ${out.length} bytes instead of ${size}.`);
  return out;
}

/** Values that were stored byte by byte: the lowest byte of all first. */
function gathered(bytes, at, count, Type) {
  const width = Type.BYTES_PER_ELEMENT;
  const out = new Uint8Array(count * width);
  for (let k = 0; k < width; k++) for (let i = 0; i < count; i++) out[i * width + k] = bytes[at + k * count + i];
  return new Type(out.buffer);
}

/**
 * Pixels of one tile within their bounds.
 *
 * @param {Uint8Array} payload
 * @param {ArrayLike<number>[]} base pixels of each band, in its stored type
 * @param {(Uint8Array | null)[]} masks valid pixels of each band; null where all are
 * @param {string[]} types stored types
 * @returns {Promise<ArrayLike<number>[]>} new arrays
 */
export async function applyResidual(payload, base, masks, types, height, width) {
  const reader = new ByteReader(payload, "residual");
  const kind = reader.u8();
  must(kind <= 2, `The residual is damaged, or newer than this decoder: it begins with ${kind}.`);
  const out = base.map((band) => band.slice());
  const area = height * width;
  const valid = masks.map((mask) => (mask ? mask.reduce((sum, v) => sum + (v ? 1 : 0), 0) : area));
  if (kind === 2) {
    const sizes = types.map((type) => arrayOf(type).BYTES_PER_ELEMENT);
    const bytes = await exactly(payload.subarray(reader.at), sizes.reduce((sum, z, b) => sum + z * valid[b], 0), "pixels");
    let at = 0;
    for (const [b, type] of types.entries()) {
      const values = gathered(bytes, at, valid[b], arrayOf(type));
      at += sizes[b] * valid[b];
      let next = 0;
      for (let i = 0; i < area; i++) if (!masks[b] || masks[b][i]) out[b][i] = values[next++];
    }
    return out;
  }
  const checksum = reader.u32();
  const all = new Uint8Array(base.reduce((sum, band) => sum + band.byteLength, 0));
  let place = 0;
  for (const band of base) {
    all.set(new Uint8Array(band.buffer, band.byteOffset, band.byteLength), place);
    place += band.byteLength;
  }
  must(crc32(all) === checksum, "The residual belongs to other pixels than these: their checksum differs.");
  if (kind === 0) {
    must(reader.at === payload.length, "The residual is damaged: bytes are left over.");
    return out;
  }
  const { rows, columns } = await readFold(reader, height, width);
  const kept = (band) => {
    const part = new band.constructor(rows.length * columns.length);
    let k = 0;
    for (const y of rows) for (const x of columns) part[k++] = band[y * width + x];
    return part;
  };
  const coded = await Coded.read(reader, base.map(kept), masks.map((m) => m && kept(m)), types, rows.length, columns.length);
  const decoded = coded.decode();
  const rowOf = lastKept(rows, height);
  const columnOf = lastKept(columns, width);
  for (const [b, band] of decoded.entries()) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const i = y * width + x;
        if (!masks[b] || masks[b][i]) out[b][i] = band[rowOf[y] * columns.length + columnOf[x]];
      }
    }
  }
  return out;
}

async function readFold(reader, height, width) {
  const every = (n) => Array.from({ length: n }, (_, i) => i);
  const folded = reader.u8();
  must(folded < 2, `The residual is damaged: its fold starts with ${folded}.`);
  if (folded === 0) return { rows: every(height), columns: every(width) };
  const size = reader.u16();
  const bytes = await exactly(reader.take(size), Math.ceil((height + width) / 8), "fold");
  const bits = new BitReader(bytes, height + width, "residual");
  const rows = every(height).filter(() => bits.bit());
  const columns = every(width).filter(() => bits.bit());
  must(rows[0] === 0 && columns[0] === 0, "The residual is damaged: its fold leaves out the first row or column.");
  return { rows, columns };
}

function lastKept(kept, n) {
  const out = new Int32Array(n);
  for (let i = 0, k = -1; i < n; i++) {
    if (kept[k + 1] === i) k++;
    out[i] = k;
  }
  return out;
}

/** The coded part of a residual. */
class Coded {
  static async read(reader, base, masks, types, height, width) {
    const self = new Coded();
    Object.assign(self, { base, masks, types, height, width, bands: base.length });
    const groups = reader.u8();
    const lanes = reader.u8();
    must((groups === 1 || groups === 3) && (lanes === 1 || lanes === 8), "The residual is damaged: its header cannot be.");
    const [sideSize, exactSize, rawSize, rawBits, words] = [reader.u32(), reader.u32(), reader.u32(), reader.u32(), reader.u32()];
    must(rawSize === Math.ceil(rawBits / 8), "The residual is damaged: raw bits of a wrong length.");
    const side = reader.take(sideSize);
    const exact = reader.take(exactSize);
    self.raw = new BitReader(reader.take(rawSize), rawBits, "residual");
    self.states = Int32Array.from({ length: lanes }, () => reader.u32() | 0);
    const at = reader.skip(2 * words);
    must(reader.at === reader.bytes.length, "The residual is damaged: bytes are left over.");
    self.words = new Uint16Array(copy(reader.bytes, at, at + 2 * words).buffer);
    self.groups = groups;
    await self.#side(side);
    await self.#exact(exact);
    return self;
  }

  async #side(stream) {
    const { groups, bands, types } = this;
    const predictions = (b, k) => 5 + FAR[k] + (b === 0 ? 0 : Math.min(b, 8) + 3);
    const magnitudes = (b, k) => 3 + FAR[k] + (b === 0 ? 0 : Math.min(b, 3) + 1);
    let [p, m] = [0, 0];
    for (let b = 0; b < bands; b++) for (let k = 0; k < 3; k++) [p, m] = [p + groups * predictions(b, k), m + groups * magnitudes(b, k)];
    const bytes = await exactly(stream, 25 * bands + 2 * p + m, "side information");
    const reader = new ByteReader(bytes, "residual");
    this.laws = types.map((type) => {
      const law = { kind: reader.u8() };
      for (const name of ["bound", "small", "typical"]) law[name] = reader.view.getFloat64(reader.skip(8), true);
      const float = type.startsWith("float");
      const fits = [!float, float, true, float][law.kind] ?? false;
      const bounded = law.kind === 2 ? law.bound > 0 && law.bound < 1 : law.bound >= 0;
      must(fits && bounded && law.small >= 0 && law.typical > 0 && [law.bound, law.small, law.typical].every(Number.isFinite), "The residual is damaged: its bounds cannot be.");
      const whole = Math.min(Math.floor(law.bound), 2 ** 40);
      law.step = 2 * whole + 1;
      law.unit = Math.max(1e-300, [law.step, 2 * law.bound * NEARLY, 2 * law.bound * law.typical, 1][law.kind]);
      return law;
    });
    const high = new Int8Array(copy(bytes, reader.at, reader.at + p).buffer);
    const low = bytes.subarray(reader.at + p, reader.at + 2 * p);
    const weights = Float64Array.from({ length: p }, (_, i) => (256 * high[i] + low[i]) / 256);
    const expected = bytes.subarray(reader.at + 2 * p);
    this.weights = [];
    this.expected = [];
    let [i, j] = [0, 0];
    for (let b = 0; b < bands; b++) {
      this.weights.push([]);
      this.expected.push([]);
      for (let set = 0; set < 3 * groups; set++) {
        const [a, c] = [predictions(b, set % 3), magnitudes(b, set % 3)];
        this.weights[b].push(weights.subarray(i, i + a));
        this.expected[b].push(expected.subarray(j, j + c));
        [i, j] = [i + a, j + c];
      }
    }
  }

  async #exact(stream) {
    const { types, bands, masks, height, width } = this;
    const widest = types.reduce((sum, type) => sum + arrayOf(type).BYTES_PER_ELEMENT * height * width, 4 * bands);
    const bytes = await inflate(stream, "deflate", widest);
    const reader = new ByteReader(bytes, "residual");
    const counts = types.map(() => reader.u32());
    this.exact = types.map((type, b) => {
      const Type = arrayOf(type);
      const valid = masks[b] ? masks[b].reduce((sum, v) => sum + (v ? 1 : 0), 0) : height * width;
      must(counts[b] <= valid, "The residual is damaged: more exact values than pixels.");
      return gathered(bytes, reader.skip(counts[b] * Type.BYTES_PER_ELEMENT), counts[b], Type);
    });
    must(reader.at === bytes.length, "The residual is damaged: exact values are left over.");
  }

  /** One token; the table is that of the bin. */
  #token(bin) {
    const { states, words, tables } = this;
    const lane = this.tokens++ % states.length;
    let x = states[lane];
    const slot = x & 16383;
    const from = bin * (TOKENS + 1);
    let t = tables.first[bin * BUCKETS + (slot >> 8)];
    while (tables.cumulated[from + t + 1] <= slot) t++;
    x = (Math.imul(tables.frequency[bin * TOKENS + t], x >>> 14) + slot - tables.cumulated[from + t]) | 0;
    if ((x & -65536) === 0) {
      if (this.word >= words.length) throw new LatentError("The residual is damaged: its coded words end early.");
      x = (x << 16) | words[this.word++];
    }
    states[lane] = x;
    tables.counts[bin * TOKENS + t]++;
    tables.used[bin] = 1;
    return t;
  }

  decode() {
    this.tables = new Tables(FIRST, TOKENS, 32768);
    this.tokens = 0;
    this.word = 0;
    this.done = []; // of finished bands: plain values, their details, magnitudes
    const out = this.base.map((_, b) => this.#band(b));
    const whole = this.word === this.words.length && this.raw.at === this.raw.count;
    must(whole && this.states.every((x) => x === 65536), "The residual is damaged: its entropy decoder does not end where it should.");
    return out;
  }

  #band(b) {
    const { height, width, types } = this;
    const law = this.laws[b];
    const type = types[b];
    const out = this.base[b].slice();
    const B = plainOf(out, law.kind, type);
    const state = {
      b, law, type, out, B, V: B.slice(), D: new Float64Array(height * width), mag: new Float64Array(height * width),
      mask: this.masks[b], exact: this.exact[b], nextExact: 0,
    };
    eachPass(height, width, (pass) => details(pass, B, state.D, height, width));
    eachPass(height, width, (pass) => {
      this.tables.renew();
      this.#pass(state, pass);
    });
    const VD = new Float64Array(height * width);
    eachPass(height, width, (pass) => details(pass, state.V, VD, height, width));
    must(state.nextExact === state.exact.length, "The residual is damaged: exact values are left over.");
    this.done.push({ V: state.V, D: VD, mag: state.mag });
    return out;
  }

  #pass(state, pass) {
    const { width } = this;
    const { b, B, D, V, mag, mask, law, type, out } = state;
    const set = pass.first ? 0 : 3 * Math.min(Math.log2(pass.s), this.groups - 1) + pass.kind;
    const weights = this.weights[b][set];
    const expected = this.expected[b][set];
    const last = b > 0 ? this.done[b - 1] : null;
    const features = new Float64Array(weights.length);
    visit(pass, this.height, width, (i, near, far) => {
      if (mask && !mask[i]) return;
      let p = B[i];
      let bin = BINS - 1;
      if (!pass.first) {
        const [q0, q1, q2, q3] = [V[near[0]], V[near[1]], V[near[2]], V[near[3]]];
        const m = (q0 + q1 + (q2 + q3)) * 0.25;
        let n = 0;
        features[n++] = q0 - m;
        features[n++] = q1 - m;
        features[n++] = q2 - m;
        for (let g = 0; g < far.length; g += 4) features[n++] = meanOf(V, far, g) - m;
        features[n++] = D[i];
        features[n++] = B[i] - D[i] - m;
        for (let c = b - 1; c >= Math.max(0, b - 8); c--) features[n++] = this.done[c].D[i];
        if (last) {
          const a = last.V[i] - last.D[i];
          for (let k = 0; k < 3; k++) features[n++] = last.V[near[k]] - a;
        }
        p = m;
        for (let k = 0; k < weights.length; k++) if (weights[k] !== 0) p += weights[k] * features[k];
        if (!Number.isFinite(p)) p = B[i];
        // Expected magnitude.
        n = 0;
        let E = expected[n++] * (mag[near[0]] + mag[near[1]] + mag[near[2]] + mag[near[3]]);
        const spread = roundEven((Math.abs(q0 - q1) + Math.abs(q2 - q3)) / law.unit);
        E += expected[n++] * Math.min(2 ** 20, spread);
        for (let g = 0; g < far.length; g += 4) E += expected[n++] * (mag[far[g]] + mag[far[g + 1]] + mag[far[g + 2]] + mag[far[g + 3]]);
        for (let c = b - 1; c >= Math.max(0, b - 3); c--) E += expected[n++] * 4 * this.done[c].mag[i];
        if (last) E += expected[n++] * (last.mag[near[0]] + last.mag[near[1]] + last.mag[near[2]] + last.mag[near[3]]);
        E += expected[n++] * 4;
        bin = binOf(E);
      }
      const token = this.#token(bin);
      if (token === TOKENS - 1) {
        must(state.nextExact < state.exact.length, "The residual is damaged: its exact values end early.");
        out[i] = state.exact[state.nextExact++];
      } else {
        let k = 0;
        const shift = SHIFT[bin];
        if (token !== 0 || shift !== 0) {
          const low = this.raw.bits(EXTRA[token] + shift);
          k = START[token] * 2 ** shift + low;
          if (this.raw.bit()) k = -k;
        }
        store(out, i, p, k, law, type);
        mag[i] = Math.min(Math.abs(k), 2 ** 20);
      }
      V[i] = plainOne(out, i, law.kind, type);
    });
  }
}

const meanOf = (plane, near, g = 0) => (plane[near[g]] + plane[near[g + 1]] + (plane[near[g + 2]] + plane[near[g + 3]])) * 0.25;

function binOf(E) {
  if (E === 0) return 0;
  const e = Math.min(E, 2 ** 28);
  const f = 31 - Math.clz32(e);
  return Math.min(57, 2 * f + (e * e >= 2 ** (2 * f + 1) ? 2 : 1));
}

/** Calls with each pass that has pixels: first, or spacing `s` and `kind`. */
function eachPass(height, width, call) {
  call({ first: true, s: 64, kind: 0, y0: 0, x0: 0, step: 64 });
  for (let s = 32; s >= 1; s /= 2) {
    for (let kind = 0; kind < 3; kind++) {
      const y0 = kind === 1 ? 0 : s;
      const x0 = kind === 2 ? 0 : s;
      if (y0 < height && x0 < width) call({ first: false, s, kind, y0, x0, step: 2 * s });
    }
  }
}

/** Positions before and after at a distance; each takes the place of the other beyond an end; null where both are. */
function pair(i, d, n) {
  const before = i - d >= 0 ? i - d : i + d;
  const after = i + d < n ? i + d : i - d;
  return before >= n || after < 0 ? null : [before, after];
}

/** Calls with each pixel of a pass: its position, and those of near and far neighbours. */
function visit({ first, s, kind, y0, x0, step }, height, width, call) {
  const near = new Int32Array(4);
  const far = new Int32Array(first ? 0 : 4 * FAR[kind]);
  for (let y = y0; y < height; y += step) {
    const rows = first ? null : pair(y, s, height);
    const [u, v] = rows ?? [y, y];
    const [u3, v3] = (first ? null : pair(y, 3 * s, height)) ?? [u, v];
    for (let x = x0; x < width; x += step) {
      if (!first) {
        const columns = pair(x, s, width);
        const [l, r] = columns ?? [x, x];
        const [l3, r3] = pair(x, 3 * s, width) ?? [l, r];
        const at = (row, column) => row * width + column;
        const put = (target, from, ...places) => {
          for (const [k, [row, column]] of places.entries()) target[from + k] = at(row, column);
        };
        if (kind === 0) {
          put(near, 0, [u, l], [v, r], [u, r], [v, l]);
          put(far, 0, [u3, l], [v3, r], [u3, r], [v3, l], [u, l3], [v, r3], [u, r3], [v, l3]);
        } else if (kind === 1) {
          put(near, 0, [y, l], [y, r], ...(height <= s ? [[y, l], [y, r]] : [[u, x], [v, x]]));
          put(far, 0, [y, l3], [y, r3], [y, l3], [y, r3]);
        } else {
          const narrow = width <= s;
          put(near, 0, ...(narrow ? [[u, x], [v, x]] : [[y, l], [y, r]]), [u, x], [v, x]);
          put(far, 0, [u3, x], [v3, x], [u3, x], [v3, x], ...(narrow ? [[u, x], [v, x], [u, x], [v, x]] : [[u, l], [v, r], [u, r], [v, l]]));
        }
      }
      call(y * width + x, near, far);
    }
  }
}

function details(pass, plane, out, height, width) {
  if (pass.first) return;
  visit(pass, height, width, (i, near) => {
    out[i] = plane[i] - meanOf(plane, near);
  });
}

const scratch = new DataView(new ArrayBuffer(8));

/** Number of a float in the order of floats. */
function orderOf(value, type) {
  if (type === "float32") {
    scratch.setFloat32(0, value);
    const n = scratch.getInt32(0);
    return n >= 0 ? n : -(2 ** 31) - n - 1;
  }
  scratch.setFloat64(0, value);
  const n = scratch.getBigInt64(0);
  return n >= 0n ? n : -(2n ** 63n) - n - 1n;
}

function floatOf(order, type) {
  if (type === "float32") {
    const n = Number(BigInt.asIntN(32, order >= 0n ? order : -(2n ** 31n) - order - 1n));
    scratch.setInt32(0, n);
    return scratch.getFloat32(0);
  }
  scratch.setBigInt64(0, BigInt.asIntN(64, order >= 0n ? order : -(2n ** 63n) - order - 1n));
  return scratch.getFloat64(0);
}

function plainOne(values, i, kind, type) {
  const v = values[i];
  if (kind === 3) return Number(orderOf(v, type));
  return Number.isFinite(v) ? v : 0;
}

const plainOf = (values, kind, type) => Float64Array.from({ length: values.length }, (_, i) => plainOne(values, i, kind, type));

const clip = (v, [low, high]) => Math.min(Math.max(v, low), high);

/** The value of a prediction and a residual. */
function store(out, i, p, k, law, type) {
  const range = RANGE[type];
  if (law.kind === 0) {
    out[i] = clip(clip(roundEven(p), range) + k * law.step, range);
  } else if (law.kind === 1) {
    out[i] = p + k * (2 * law.bound * NEARLY);
  } else if (law.kind === 3) {
    out[i] = floatOf(BigInt(clip(roundEven(p), [-(2 ** 62), 2 ** 62])) + BigInt(k), type);
  } else {
    const value = ratio(p, clip(k, [-1023, 1023]), law, type, range);
    if (!range) out[i] = value;
    else out[i] = Number.isFinite(value) ? clip(clip(roundEven(value), [-(2 ** 52), 2 ** 52]), range) : 0;
  }
}

function ratio(p, k, { bound, small }, type, range) {
  if (range) p = roundEven(p);
  if (Math.abs(p) < small) p = 0;
  let e;
  if (!range) e = Math.max(0, bound * NEARLY - MARGIN[type]);
  else e = bound * Math.abs(p) >= 4 ? bound - 0.6 / Math.max(Math.abs(p), 1) : 0;
  if (range && e === 0) return p + k * (2 * Math.floor((bound * Math.abs(p)) / (1 + bound)) + 1);
  const factor = power((1 + e) / (1 - e), Math.abs(k));
  return k < 0 ? p / factor : p * factor;
}
