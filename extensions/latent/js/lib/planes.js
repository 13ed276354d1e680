// Planes of quantised components: contexts, adaptive tables and the entropy decoder (docs/lin.md, "Planes and contexts").
//
// All planes of a tile lie in one array, each with two samples of zeros on every side, so that neighbours need no test.

import { digits } from "./bits.js";
import { LatentError } from "./errors.js";

const PAD = 2;
const BINS = 24;
export const BUCKETS = 64; // of 2^8 slots each: where the search for a symbol begins

const BIN = new Uint8Array(4096);
for (let e = 1; e < 4096; e++) {
  // 1 + floor(2 log2 e), with integers: e^2 >= 2^n.
  BIN[e] = Math.min(BINS - 1, digits(e * e));
}

/** What is thrown where the words that were read do not suffice for the levels that are asked for. */
export class MoreWords extends LatentError {
  constructor() {
    super("The payload is damaged, or was cut short: its coded words end early.");
    this.name = "MoreWords";
  }
}

/** Adaptive tables of equal numbers of symbols; counts of more than `limit` are halved. */
export class Tables {
  constructor(counts, symbols, limit = 65536) {
    this.symbols = symbols;
    this.limit = limit;
    this.size = counts.length / symbols;
    this.counts = Int32Array.from(counts);
    this.frequency = new Int32Array(counts.length);
    this.cumulated = new Int32Array(this.size * (symbols + 1));
    this.first = symbols > 2 ? new Uint8Array(this.size * BUCKETS) : null;
    this.used = new Uint8Array(this.size).fill(1); // counts changed since the frequencies were made
  }

  renew() {
    const { symbols: n, counts, frequency, cumulated, first, used, limit } = this;
    for (let t = 0; t < this.size; t++) {
      if (!used[t]) continue;
      const at = t * n;
      let sum = 0;
      for (let s = 0; s < n; s++) sum += counts[at + s];
      used[t] = 0;
      if (sum > limit) {
        sum = 0;
        for (let s = 0; s < n; s++) sum += counts[at + s] = (counts[at + s] + 1) >> 1;
        if (sum > limit) used[t] = 1; // halved once for each plane
      }
      const share = Math.floor((2 ** 20 * (16384 - n)) / sum);
      let missing = 16384;
      let largest = 0;
      for (let s = 0; s < n; s++) {
        const f = 1 + Math.floor((counts[at + s] * share) / 2 ** 20);
        frequency[at + s] = f;
        missing -= f;
        if (counts[at + s] > counts[at + largest]) largest = s;
      }
      frequency[at + largest] += missing;
      const from = t * (n + 1);
      let total = 0;
      for (let s = 0; s < n; s++) {
        cumulated[from + s] = total;
        total += frequency[at + s];
      }
      cumulated[from + n] = total;
      if (first) {
        let s = 0;
        for (let b = 0; b < BUCKETS; b++) {
          while (cumulated[from + s + 1] <= b << 8) s++;
          first[t * BUCKETS + b] = s;
        }
      }
    }
  }
}

let spare = { area: 0, largest: 0 };

/** Arrays that one tile after the other uses: decoding is done by one thread, and to the end. */
function room(area, largest) {
  if (spare.area < area || spare.largest < largest) {
    spare = {
      area, largest, mag: new Uint16Array(area), value: new Int32Array(area), list: new Int32Array(largest),
      far: new Int32Array(largest * 2), around: new Int32Array(largest),
    };
  } else {
    spare.mag.fill(0, 0, area);
    spare.value.fill(0, 0, area);
  }
  return spare;
}

/** Decodes the planes of one tile, in the order in which they are coded. */
export class PlaneDecoder {
  /**
   * @param {object} model weights, counts, runs and signs of the space
   * @param {Uint32Array} states first states, one for each lane
   * @param {Uint16Array} words coded words
   * @param {BitReader} raw raw bits
   * @param {number} area samples of all planes with their margins
   * @param {number} largest samples of the largest plane with its margins
   */
  constructor(model, states, words, raw, area, largest) {
    this.weights = model.weights;
    this.magnitudes = new Tables(model.counts, 16);
    this.runs = new Tables(model.runs, 2);
    this.signs = new Tables(model.signs, 2);
    this.states = Int32Array.from(states);
    this.lanes = states.length - 1;
    this.words = words;
    this.raw = raw;
    this.wordsRead = 0;
    this.symbolsRead = 0;
    const arrays = room(area + 1, largest);
    this.mag = arrays.mag; // contexts: magnitudes of at most 32767
    this.value = arrays.value; // the samples
    this.next = 1; // 0 says that there is no plane
    this.list = arrays.list;
    this.far = arrays.far;
    this.around = arrays.around; // sums of a parent's eight neighbours
    this.aroundOf = 0;
  }

  /** Sums of the eight neighbours of each sample of a parent, one beyond its end included. */
  #sumAround(parent) {
    if (this.aroundOf === parent.at) return;
    this.aroundOf = parent.at;
    const { mag, around } = this;
    const { at, stride, height, width } = parent;
    for (let y = PAD; y <= height + PAD; y++) {
      let p = at + y * stride + PAD;
      let q = y * stride + PAD;
      let left = mag[p - 1 - stride] + mag[p - 1] + mag[p - 1 + stride];
      let here = mag[p - stride] + mag[p] + mag[p + stride];
      for (let x = 0; x <= width; x++, p++, q++) {
        const right = mag[p + 1 - stride] + mag[p + 1] + mag[p + 1 + stride];
        around[q] = left + here + right - mag[p];
        left = here;
        here = right;
      }
    }
  }

  /**
   * Decodes one plane.
   *
   * @param {object} set number of the set of weights; orientation; `rawSigns` in group 0
   * @param {object} near parent, before, other1, other2: planes or null
   */
  plane(height, width, set, orientation, rawSigns, near) {
    const stride = width + 2 * PAD;
    const plane = { at: this.next, height, width, stride };
    this.next += stride * (height + 2 * PAD);
    if (height === 0 || width === 0) return plane;
    this.magnitudes.renew();
    this.runs.renew();
    this.signs.renew();
    const same = (other) => (other && other.height === height && other.width === width ? other.at : 0);
    const parent = near.parent ?? null;
    if (parent) this.#sumAround(parent);
    const places = {
      at: plane.at, stride, parent: parent ? parent.at : 0, parentStride: parent ? parent.stride : 0,
      before: same(near.before), other1: same(near.other1), other2: same(near.other2),
    };
    for (let pass = 0; pass < 4; pass++) {
      const found = this.#pass(pass, height, width, set, places);
      this.#signs(pass, orientation, rawSigns || pass === 0, plane, found.nonzero);
      if (found.far) this.#far(found.far);
    }
    if (this.wordsRead > this.words.length) throw new MoreWords();
    return plane;
  }

  /** Magnitudes of one pass: symbols, with 15 for what lies beyond the table. */
  #pass(pass, height, width, set, places) {
    const { mag, value, list, far, around, words, states, lanes } = this;
    const { counts, frequency, cumulated, first, used } = this.magnitudes;
    const runs = this.runs;
    const w = this.weights;
    const at = (set * 4 + pass) * 8;
    const w0 = w[at], w1 = w[at + 1], w2 = w[at + 2], w3 = w[at + 3];
    const w4 = w[at + 4], w5 = w[at + 5], w6 = w[at + 6], w7 = w[at + 7];
    const stride = places.stride;
    const before = places.before - places.at;
    const hasBefore = places.before > 0;
    const other1 = places.other1 - places.at;
    const other2 = places.other2 - places.at;
    const has1 = places.other1 > 0, has2 = places.other2 > 0;
    const hasParent = places.parent > 0;
    const top = pass === 0 || pass === 2 ? 0 : 1;
    const start = pass === 0 || pass === 3 ? 0 : 1;
    const columns = (width - start + 1) >> 1;
    const runFrequency0 = runs.frequency[2 * pass];
    let runLeft = 0;
    let runCoded = false;
    let word = this.wordsRead;
    let symbols = this.symbolsRead;
    let nonzero = 0;
    let beyond = 0;
    for (let y = top; y < height; y += 2) {
      let p = places.at + (y + PAD) * stride + PAD + start;
      const parentRow = ((y >> 1) + PAD) * places.parentStride + PAD;
      for (let i = 0; i < columns; i++, p += 2) {
        const up = p - 2 * stride;
        let e = w6 * mag[p - 2] + w7 * (mag[up - 2] + mag[up] + mag[up + 2]);
        if (pass === 1) {
          e += w0 * (mag[p - stride - 1] + mag[p - stride + 1] + mag[p + stride - 1] + mag[p + stride + 1]);
        } else if (pass !== 0) {
          e += w0 * (mag[p - 1] + mag[p + 1] + mag[p - stride] + mag[p + stride]);
          if (pass === 3) {
            e += w1 * (mag[p - stride - 1] + mag[p - stride + 1] + mag[p + stride - 1] + mag[p + stride + 1]);
          }
        }
        if (hasParent) e += w2 * mag[places.parent + parentRow + i] + w3 * around[parentRow + i];
        if (hasBefore) e += w4 * mag[p + before];
        if (has1) e += w5 * mag[p + other1];
        if (has2) e += w5 * mag[p + other2];
        e >>= 2;
        const bin = BIN[e < 4095 ? e : 4095];
        if (bin === 0) {
          if (runLeft === 0) {
            const lane = symbols++ & lanes;
            let x = states[lane];
            const slot = x & 16383;
            const flag = slot >= runFrequency0 ? 1 : 0;
            x = Math.imul(runs.frequency[2 * pass + flag], x >>> 14) + slot - (flag ? runFrequency0 : 0) | 0;
            if ((x & -65536) === 0) x = (x << 16) | words[word++];
            states[lane] = x;
            runs.counts[2 * pass + flag] += 32;
            runs.used[pass] = 1;
            runLeft = 8;
            runCoded = flag === 1;
          }
          runLeft--;
          if (!runCoded) continue;
        }
        const table = pass * BINS + bin;
        const from = table * 17;
        const lane = symbols++ & lanes;
        let x = states[lane];
        const slot = x & 16383;
        let s = first[table * BUCKETS + (slot >> 8)];
        while (cumulated[from + s + 1] <= slot) s++;
        x = Math.imul(frequency[(table << 4) + s], x >>> 14) + slot - cumulated[from + s] | 0;
        if ((x & -65536) === 0) x = (x << 16) | words[word++];
        states[lane] = x;
        counts[(table << 4) + s] += 32;
        used[table] = 1;
        if (s !== 0) {
          mag[p] = s;
          value[p] = s;
          list[nonzero++] = p;
          if (s === 15) {
            far[beyond++] = p;
            far[beyond++] = e;
          }
        }
      }
    }
    this.wordsRead = word;
    this.symbolsRead = symbols;
    if (word > words.length) throw new MoreWords();
    return { nonzero, far: beyond };
  }

  /** Signs of the samples of a pass that are not zero. */
  #signs(pass, orientation, allRaw, plane, nonzero) {
    const { value, list, raw, words, states, lanes } = this;
    const { counts, frequency, used } = this.signs;
    const stride = plane.stride;
    const straight = pass > 1;
    const a1 = straight ? -1 : -stride - 1;
    const b1 = straight ? -stride : -stride + 1;
    const base = (orientation * 2 + (straight ? 1 : 0)) * 12;
    const bits = raw.bytes;
    let at = raw.at;
    let word = this.wordsRead;
    let symbols = this.symbolsRead;
    for (let k = 0; k < nonzero; k++) {
      const p = list[k];
      let n = 0;
      if (!allRaw) {
        const l = value[p + a1], r = value[p - a1], u = value[p + b1], d = value[p - b1];
        n = 5 * ((l >> 31) + (-l >>> 31) + (r >> 31) + (-r >>> 31)) + (u >> 31) + (-u >>> 31) + (d >> 31) + (-d >>> 31);
      }
      let negative;
      if (n === 0) {
        negative = (bits[at >> 3] >> (7 - (at & 7))) & 1;
        at++;
      } else {
        const table = base + (n < 0 ? -n : n) - 1;
        const lane = symbols++ & lanes;
        let x = states[lane];
        const slot = x & 16383;
        const f0 = frequency[2 * table];
        const s = slot >= f0 ? 1 : 0;
        x = Math.imul(frequency[2 * table + s], x >>> 14) + slot - (s ? f0 : 0) | 0;
        if ((x & -65536) === 0) x = (x << 16) | words[word++];
        states[lane] = x;
        counts[2 * table + s] += 32;
        used[table] = 1;
        negative = n > 0 ? s : 1 - s;
      }
      if (negative) value[p] = -value[p];
    }
    if (at > raw.count) throw new LatentError("The payload is damaged: its raw bits end early.");
    raw.at = at;
    this.wordsRead = word;
    this.symbolsRead = symbols;
    if (word > words.length) throw new MoreWords();
  }

  /** Magnitudes of 15 and more. */
  #far(count) {
    const { mag, value, far, raw } = this;
    for (let k = 0; k < count; k += 2) {
      const p = far[k];
      const order = Math.min(20, Math.max(0, digits(far[k + 1]) - 8));
      const ones = raw.ones(30);
      if (ones + order > 29) throw new LatentError("The payload is damaged: a magnitude of more than 30 bits.");
      const n = ones + order;
      const x = 2 ** n + raw.bits(n);
      const v = x + 15 - 2 ** order;
      mag[p] = Math.min(v, 32767);
      value[p] = value[p] < 0 ? -v : v;
    }
  }

  /** That nothing is left over. */
  finish() {
    const whole = this.wordsRead === this.words.length && this.raw.at === this.raw.count;
    if (!whole || this.states.some((x) => x !== 65536)) {
      throw new LatentError("The payload is damaged: its entropy decoder does not end where it should.");
    }
  }
}

/** Samples that a plane takes with its margins. */
export const planeArea = (height, width) => (height + 2 * PAD) * (width + 2 * PAD);
export const MARGIN = PAD;
