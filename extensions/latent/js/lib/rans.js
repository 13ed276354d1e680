// `stac-latent-rans-1`: an entropy coder for integers, and the transforms of the codecs that use it (spec/rans.md).

import { ByteReader, copy, crc32 } from "./bits.js";
import { LatentError, must } from "./errors.js";
import { roundEven } from "./pixels.js";
import { inflate } from "./zarr.js";

const SCALE = 2 ** 24;
const HALF = 2n ** 32n;
const SHIFT = 2 ** 14;

/** Where each symbol of a table begins among 2^24 slots. */
function startsOf(counts) {
  const n = counts.length;
  const starts = new Float64Array(n + 1);
  let sum = 0;
  for (let i = 0; i <= n; i++) {
    starts[i] = Math.floor((sum * (SCALE - n)) / 2 ** 20) + i;
    if (i < n) sum += Number(counts[i]);
  }
  must(starts[n] === SCALE, "The codec's tables are damaged: counts do not sum to 2^20.");
  return starts;
}

/** What `decodeSymbols` needs of a codec: tables, by the tensors of stage `stage`. */
export function ransModel(tensors, stage) {
  const get = (name) => {
    const tensor = tensors.get(`${stage}.${name}`);
    must(tensor, `The codec has no tensor ${stage}.${name}.`);
    return tensor;
  };
  const radius = Array.from(get("radius").data, Number);
  const cut = (data, count) => {
    let at = 0;
    return radius.slice(0, count).map((r) => startsOf(data.subarray(at, (at += 2 * r + 2))));
  };
  const gaps = get("gap_counts");
  const coded = gaps.shape[0];
  return {
    radius, coded, tables: cut(get("counts").data, radius.length), nonzero: cut(get("nonzero_counts").data, coded),
    gaps: Array.from({ length: coded }, (_, t) => startsOf(gaps.data.subarray(t * 257, (t + 1) * 257))),
    classes: startsOf(get("class_counts").data), indices: startsOf(get("index_counts").data),
    typical: Array.from(get("typical").data, Number), predicted: Array.from(get("predicted").data, Number),
  };
}

class Decoder {
  constructor(words) {
    this.words = words;
    this.left = words.length;
    this.state = 0n;
    this.#fill();
  }

  #fill() {
    while (this.state < HALF && this.left > 0) this.state = this.state * HALF + BigInt(this.words[--this.left]);
  }

  symbol(starts) {
    const slot = Number(this.state & 0xffffffn);
    let [low, high] = [0, starts.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (starts[middle] <= slot) low = middle;
      else high = middle;
    }
    this.state = (this.state >> 24n) * BigInt(starts[low + 1] - starts[low]) + BigInt(slot - starts[low]);
    if (this.state < HALF && this.left > 0) this.state = this.state * HALF + BigInt(this.words[--this.left]);
    return low;
  }
}

/** The symbols (channel, y, x) of one payload. */
export async function decodeSymbols(bytes, model, channels) {
  const reader = new ByteReader(bytes, "payload");
  const magic = String.fromCharCode(...reader.take(4));
  must(magic === "SLR1", "The payload is none of stac-latent-rans-1: it does not begin with SLR1.");
  must(reader.u32() === channels && model.typical.length === channels, "The payload is damaged: it has another number of channels than the codec.");
  const [rows, columns] = [reader.u32(), reader.u32()];
  const cells = rows * columns;
  must(cells >= 1 && cells <= 2 ** 24, `The payload is damaged: ${rows} x ${columns} cells.`);
  const [checksum, words, escapeBytes] = [reader.u32(), reader.u32(), reader.u32()];
  const gapCounts = Array.from({ length: model.coded }, () => reader.u32());
  const at = reader.skip(4 * words);
  const decoder = new Decoder(new Uint32Array(copy(bytes, at, at + 4 * words).buffer));
  const packed = reader.take(escapeBytes);
  must(reader.at === bytes.length, "The payload is damaged: bytes are left over.");
  const inflated = escapeBytes ? await inflate(packed, "deflate", 4 * channels * cells) : new Uint8Array(0);
  must(inflated.length % 4 === 0, "The payload is damaged: its escapes are cut short.");
  const escapes = new Int32Array(inflated.buffer);
  let escaped = 0;

  const T = model.radius.length;
  const index = model.typical.map((usual) => usual + decoder.symbol(model.indices) - T);
  must(index.every((i) => i >= 0 && i <= T), "The payload is damaged: a channel's index is out of range.");
  const classes = new Int8Array(cells);
  let last = 4;
  for (let k = 0; k < cells; k++) {
    last += decoder.symbol(model.classes) - 8;
    must(last >= 0 && last <= 7, "The payload is damaged: a cell's class is out of range.");
    classes[k] = last;
  }
  const members = Array.from({ length: T + 1 }, () => []);
  for (let c = 0; c < channels; c++) {
    if (index[c] === 0) continue;
    for (let k = 0; k < cells; k++) members[Math.min(T, Math.max(0, index[c] + classes[k] - 4))].push(c * cells + k);
  }
  const symbols = new Int16Array(channels * cells);
  const put = (place, number, radius) => {
    if (number <= 2 * radius) {
      symbols[place] = number - radius;
      return;
    }
    must(escaped < escapes.length, "The payload is damaged: its escapes end early.");
    symbols[place] = escapes[escaped++];
  };
  for (let t = 1; t <= T; t++) {
    const radius = model.radius[t - 1];
    const places = members[t];
    if (t > model.coded) {
      for (const place of places) put(place, decoder.symbol(model.tables[t - 1]), radius);
      continue;
    }
    const ends = [];
    let place = 0;
    for (let k = 0; k < gapCounts[t - 1]; k++) {
      const gap = decoder.symbol(model.gaps[t - 1]);
      place += gap;
      must(place <= places.length, "The payload is damaged: a gap leads beyond its table.");
      if (gap === 256) continue;
      must(place < places.length, "The payload is damaged: a gap leads beyond its table.");
      ends.push(places[place++]);
    }
    for (const end of ends) put(end, decoder.symbol(model.nonzero[t - 1]), radius);
  }
  for (const c of model.predicted) {
    const plane = symbols.subarray(c * cells, (c + 1) * cells);
    for (let y = 1; y < rows; y++) plane[y * columns] += plane[(y - 1) * columns];
    for (let y = 0; y < rows; y++) for (let x = 1; x < columns; x++) plane[y * columns + x] += plane[y * columns + x - 1];
  }
  must(crc32(new Uint8Array(symbols.buffer)) === checksum, "The payload is damaged: the CRC-32 of its symbols differs.");
  return { symbols, rows, columns };
}

/** Numbers of each band in 16ths of a unit, from the symbols of a whole array. */
export function invertStages(symbols, rows, columns, codec) {
  const stages = codec.chain.map((stage, i) => ({ ...stage, get: (name) => codec.tensors.get(`${i}.${name}`) })).reverse();
  let planes = { data: Float64Array.from(symbols), rows, columns }; // cells; after the transform (component, y, x)
  for (const stage of stages) {
    if (stage.stage === "uniform") {
      const cells = rows * columns;
      for (let i = 0; i < planes.data.length; i++) planes.data[i] *= stage.step[stage.step.length === 1 ? 0 : Math.floor(i / cells)];
    } else if (stage.stage === "dct") {
      planes = invertCosine(planes, stage);
    } else if (stage.stage === "wavelet") {
      planes = invertWavelet(planes, stage.levels);
    } else if (stage.stage === "klt") {
      planes = rotate(planes, stage.get("matrix"));
    } else if (stage.stage !== "rans" && stage.stage !== "normalise") {
      throw new LatentError(`The codec has the stage ${stage.stage}, which this decoder does not know.`);
    }
  }
  return planes;
}

function invertCosine({ data, rows, columns }, stage) {
  const { size, components, keep } = stage;
  const B = stage.get("basis").data;
  const cells = rows * columns;
  const [height, width] = [rows * size, columns * size];
  const out = new Float64Array(components * height * width);
  const channel = new Int32Array(components * size * size).fill(-1);
  const kept = keep ?? Array.from({ length: channel.length }, (_, k) => k);
  for (const [k, place] of kept.entries()) channel[place] = k;
  const half = new Float64Array(size * size);
  for (let c = 0; c < components; c++) {
    for (let cell = 0; cell < cells; cell++) {
      for (let ky = 0; ky < size; ky++) {
        for (let px = 0; px < size; px++) {
          let sum = 0;
          for (let kx = 0; kx < size; kx++) {
            const k = channel[(c * size + ky) * size + kx];
            if (k >= 0) sum += B[kx * size + px] * data[k * cells + cell];
          }
          half[ky * size + px] = roundEven(sum / SHIFT);
        }
      }
      const corner = (c * height + Math.floor(cell / columns) * size) * width + (cell % columns) * size;
      for (let py = 0; py < size; py++) {
        for (let px = 0; px < size; px++) {
          let sum = 0;
          for (let ky = 0; ky < size; ky++) sum += B[ky * size + py] * half[ky * size + px];
          out[corner + py * width + px] = roundEven(sum / SHIFT);
        }
      }
    }
  }
  return { data: out, rows: height, columns: width };
}

/** One line of lows and details, woven. */
function lift(s, d, n, out) {
  const at = (list, i) => list[Math.min(Math.max(i, 0), n - 1)];
  const step = (target, factor, other, shift) => {
    for (let i = 0; i < n; i++) target[i] += roundEven((factor * (at(other, i + shift) + at(other, i + shift + 1))) / SHIFT);
  };
  step(s, -7266, d, -1);
  step(d, -14466, s, 0);
  step(s, 868, d, -1);
  step(d, 25987, s, 0);
  for (let i = 0; i < n; i++) [out[2 * i], out[2 * i + 1]] = [s[i], d[i]];
}

function invertWavelet({ data, rows, columns }, levels) {
  const cells = rows * columns;
  const each = 4 ** levels;
  const components = data.length / (each * cells);
  const [fullH, fullW] = [rows * 2 ** levels, columns * 2 ** levels];
  const out = new Float64Array(components * fullH * fullW);
  for (let c = 0; c < components; c++) {
    let channel = c * each;
    // Planes of a band: m x m samples of each cell, side by side.
    const plane = (m) => {
      const band = new Float64Array(rows * m * columns * m);
      for (let y = 0; y < m; y++) for (let x = 0; x < m; x++, channel++) {
        for (let k = 0; k < cells; k++) band[(Math.floor(k / columns) * m + y) * columns * m + (k % columns) * m + x] = data[channel * cells + k];
      }
      return band;
    };
    let low = plane(1);
    for (let m = 1; m < 2 ** levels; m *= 2) {
      const [h, w] = [rows * m, columns * m];
      const [across, down, both] = [plane(m), plane(m), plane(m)];
      const woven = (a, b) => {
        const result = new Float64Array(2 * h * w);
        const [s, d, line] = [new Float64Array(h), new Float64Array(h), new Float64Array(2 * h)];
        for (let x = 0; x < w; x++) {
          for (let y = 0; y < h; y++) [s[y], d[y]] = [a[y * w + x], b[y * w + x]];
          lift(s, d, h, line);
          for (let y = 0; y < 2 * h; y++) result[y * w + x] = line[y];
        }
        return result;
      };
      const [left, right] = [woven(low, down), woven(across, both)];
      low = new Float64Array(4 * h * w);
      for (let y = 0; y < 2 * h; y++) lift(left.subarray(y * w, (y + 1) * w), right.subarray(y * w, (y + 1) * w), w, low.subarray(y * 2 * w, (y + 1) * 2 * w));
    }
    out.set(low, c * fullH * fullW);
  }
  return { data: out, rows: fullH, columns: fullW };
}

function rotate({ data, rows, columns }, { data: matrix, shape: [components, bands] }) {
  const size = rows * columns;
  const out = new Float64Array(bands * size);
  for (let b = 0; b < bands; b++) {
    for (let i = 0; i < size; i++) {
      let sum = 0;
      for (let c = 0; c < components; c++) sum += matrix[c * bands + b] * data[c * size + i];
      out[b * size + i] = roundEven(sum / SHIFT);
    }
  }
  return { data: out, rows, columns };
}
