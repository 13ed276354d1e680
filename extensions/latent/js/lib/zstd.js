// Zstandard frames without dictionaries (RFC 8878): masks of valid pixels are compressed with it.

import { LatentError, must } from "./errors.js";

const damaged = (what) => new LatentError(`The zstd frame is damaged: ${what}.`);

/** Reads bits from the end of a part of bytes backwards; the highest bit that is set marks the beginning. */
class BackwardBits {
  constructor(bytes) {
    must(bytes.length > 0 && bytes.at(-1) !== 0, "The zstd frame is damaged: a stream without an end mark.");
    this.bytes = bytes;
    this.left = bytes.length * 8 - (Math.clz32(bytes.at(-1)) - 24) - 1;
  }

  /** The next bits, without taking them; zeros beyond the beginning. */
  peek(count) {
    let value = 0;
    for (let k = 1; k <= count; k++) {
      const at = this.left - k;
      value = value * 2 + (at >= 0 ? (this.bytes[at >> 3] >> (at & 7)) & 1 : 0);
    }
    return value;
  }

  read(count) {
    const value = this.peek(count);
    this.left -= count;
    return value;
  }
}

class ForwardBits {
  constructor(bytes, at) {
    this.bytes = bytes;
    this.at = at * 8;
  }

  read(count) {
    let value = 0;
    for (let k = 0; k < count; k++, this.at++) {
      if (this.at >> 3 >= this.bytes.length) throw damaged("a table is cut short");
      value |= ((this.bytes[this.at >> 3] >> (this.at & 7)) & 1) << k;
    }
    return value;
  }
}

/** Normalised counts of an FSE table. */
function readCounts(bytes, at, largestLog) {
  const bits = new ForwardBits(bytes, at);
  const log = bits.read(4) + 5;
  if (log > largestLog) throw damaged("a table is too large");
  let left = (1 << log) + 1;
  const counts = [];
  while (left > 1) {
    if (counts.length > 255) throw damaged("a table of too many symbols");
    const width = 32 - Math.clz32(left);
    let value = bits.read(width - 1);
    const small = (1 << width) - 1 - left;
    if (value >= small) {
      value |= bits.read(1) << (width - 1);
      if (value >= 1 << (width - 1)) value -= small;
    }
    const count = value - 1;
    left -= Math.abs(count);
    counts.push(count);
    if (count === 0) {
      let repeat;
      do {
        repeat = bits.read(2);
        for (let k = 0; k < repeat; k++) counts.push(0);
      } while (repeat === 3);
    }
  }
  if (left !== 1) throw damaged("the counts of a table do not add up");
  return { counts, log, next: Math.ceil(bits.at / 8) };
}

/** States of an FSE decoder: symbol, bits to read, base of the next state. */
function makeTable(counts, log) {
  const size = 1 << log;
  const symbol = new Uint8Array(size);
  const bits = new Uint8Array(size);
  const base = new Uint16Array(size);
  let high = size;
  const next = counts.map((count, s) => {
    if (count === -1) symbol[--high] = s;
    return count === -1 ? 1 : count;
  });
  const step = (size >> 1) + (size >> 3) + 3;
  let position = 0;
  for (const [s, count] of counts.entries()) {
    for (let k = 0; k < count; k++) {
      symbol[position] = s;
      do position = (position + step) & (size - 1); while (position >= high);
    }
  }
  for (let i = 0; i < size; i++) {
    const x = next[symbol[i]]++;
    bits[i] = log - (31 - Math.clz32(x));
    base[i] = (x << bits[i]) - size;
  }
  return { log, symbol, bits, base };
}

const single = (s) => ({ log: 0, symbol: Uint8Array.of(s), bits: Uint8Array.of(0), base: Uint16Array.of(0) });

const LL_BASE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 28, 32, 40, 48, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
const LL_BITS = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const ML_BASE = [...Array.from({ length: 32 }, (_, i) => i + 3), 35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99, 131, 259, 515, 1027, 2051, 4099, 8195, 16387, 32771, 65539];
const ML_BITS = [...Array(32).fill(0), 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const LL_DEFAULT = makeTable([4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1], 6);
const ML_DEFAULT = makeTable([1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1], 6);
const OF_DEFAULT = makeTable([1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1], 5);

/** Weights of a Huffman code, coded by FSE with two states. */
function fseWeights(bytes) {
  const { counts, log, next } = readCounts(bytes, 0, 6);
  const table = makeTable(counts, log);
  const bits = new BackwardBits(bytes.subarray(next));
  const states = [bits.read(log), bits.read(log)];
  const weights = [];
  for (let turn = 0; ; turn ^= 1) {
    weights.push(table.symbol[states[turn]]);
    if (weights.length > 255) throw damaged("a Huffman code of too many symbols");
    const need = table.bits[states[turn]];
    if (bits.left < need) {
      weights.push(table.symbol[states[turn ^ 1]]);
      return weights;
    }
    states[turn] = table.base[states[turn]] + bits.read(need);
  }
}

function readHuffman(bytes) {
  const head = bytes[0];
  let weights = [];
  let next;
  if (head >= 128) {
    const count = head - 127;
    next = 1 + ((count + 1) >> 1);
    for (let i = 0; i < count; i++) weights.push(i & 1 ? bytes[1 + (i >> 1)] & 15 : bytes[1 + (i >> 1)] >> 4);
  } else {
    next = 1 + head;
    weights = fseWeights(bytes.subarray(1, next));
  }
  const sum = weights.reduce((total, w) => total + (w ? 2 ** (w - 1) : 0), 0);
  if (sum === 0) throw damaged("an empty Huffman code");
  const log = 32 - Math.clz32(sum);
  const rest = 2 ** log - sum;
  const last = Math.log2(rest) + 1;
  if (log > 11 || !Number.isInteger(last)) throw damaged("the weights of a Huffman code do not add up");
  weights.push(last);
  const symbol = new Uint8Array(1 << log);
  const length = new Uint8Array(1 << log);
  let at = 0;
  for (let w = 1; w <= log; w++) {
    for (const [s, weight] of weights.entries()) {
      if (weight !== w) continue;
      symbol.fill(s, at, at + (1 << (w - 1)));
      length.fill(log + 1 - w, at, at + (1 << (w - 1)));
      at += 1 << (w - 1);
    }
  }
  return { table: { log, symbol, length }, next };
}

function huffmanStream(bytes, { log, symbol, length }, count) {
  const bits = new BackwardBits(bytes);
  const out = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const code = bits.peek(log);
    out[i] = symbol[code];
    bits.left -= length[code];
  }
  if (bits.left !== 0) throw damaged("a Huffman stream does not end where it should");
  return out;
}

class Frame {
  constructor() {
    this.huffman = null;
    this.tables = [null, null, null];
    this.offsets = [1, 4, 8];
    this.out = [];
  }

  literals(block) {
    const kind = block[0] & 3;
    const format = (block[0] >> 2) & 3;
    if (kind < 2) {
      const width = format === 1 ? 2 : format === 3 ? 3 : 1;
      let packed = 0;
      for (let i = 0; i < width; i++) packed |= block[i] << (8 * i);
      const size = packed >> (width === 1 ? 3 : 4);
      if (kind === 0) return [block.subarray(width, width + size), width + size];
      return [new Uint8Array(size).fill(block[width]), width + 1];
    }
    const width = format < 2 ? 3 : format === 2 ? 4 : 5;
    const digits = format < 2 ? 10 : format === 2 ? 14 : 18;
    let packed = 0;
    for (let i = width - 1; i >= 0; i--) packed = packed * 256 + block[i];
    packed = Math.floor(packed / 16);
    const size = packed % 2 ** digits;
    const stored = Math.floor(packed / 2 ** digits);
    let data = block.subarray(width, width + stored);
    if (kind === 2) {
      const { table, next } = readHuffman(data);
      this.huffman = table;
      data = data.subarray(next);
    }
    if (!this.huffman) throw damaged("a Huffman code is missing");
    if (format === 0) return [huffmanStream(data, this.huffman, size), width + stored];
    const out = new Uint8Array(size);
    const quarter = (size + 3) >> 2;
    const sizes = [0, 2, 4].map((i) => data[i] | (data[i + 1] << 8));
    let at = 6;
    for (let k = 0; k < 4; k++) {
      const end = k < 3 ? at + sizes[k] : data.length;
      const count = k < 3 ? quarter : size - 3 * quarter;
      out.set(huffmanStream(data.subarray(at, end), this.huffman, count), k * quarter);
      at = end;
    }
    return [out, width + stored];
  }

  block(block) {
    const [literals, start] = this.literals(block);
    let at = start;
    let count = block[at++];
    if (count >= 128) count = count < 255 ? ((count - 128) << 8) + block[at++] : block[at++] + (block[at++] << 8) + 0x7f00;
    const out = this.out;
    if (count === 0) {
      for (const byte of literals) out.push(byte);
      return;
    }
    const modes = block[at++];
    const defaults = [LL_DEFAULT, OF_DEFAULT, ML_DEFAULT];
    const logs = [9, 8, 9];
    for (let k = 0; k < 3; k++) {
      const mode = (modes >> (6 - 2 * k)) & 3;
      if (mode === 0) this.tables[k] = defaults[k];
      else if (mode === 1) this.tables[k] = single(block[at++]);
      else if (mode === 2) {
        const { counts, log, next } = readCounts(block, at, logs[k]);
        this.tables[k] = makeTable(counts, log);
        at = next;
      }
      if (!this.tables[k]) throw damaged("a table is missing");
    }
    const [ll, of, ml] = this.tables;
    const bits = new BackwardBits(block.subarray(at));
    let [l, o, m] = [bits.read(ll.log), bits.read(of.log), bits.read(ml.log)];
    let taken = 0;
    for (let k = 0; k < count; k++) {
      const code = of.symbol[o];
      if (code > 31) throw damaged("an offset is too large");
      let offset = 2 ** code + bits.read(code);
      const match = ML_BASE[ml.symbol[m]] + bits.read(ML_BITS[ml.symbol[m]]);
      const run = LL_BASE[ll.symbol[l]] + bits.read(LL_BITS[ll.symbol[l]]);
      const recent = this.offsets;
      if (offset > 3) {
        offset -= 3;
        this.offsets = [offset, recent[0], recent[1]];
      } else {
        const which = offset - 1 + (run === 0 ? 1 : 0);
        offset = which === 3 ? recent[0] - 1 : recent[which];
        if (which === 1) this.offsets = [offset, recent[0], recent[2]];
        else if (which > 1) this.offsets = [offset, recent[0], recent[1]];
      }
      if (taken + run > literals.length) throw damaged("it copies more literals than there are");
      for (let i = 0; i < run; i++) out.push(literals[taken++]);
      if (offset < 1 || offset > out.length) throw damaged("it copies from before its beginning");
      for (let i = 0; i < match; i++) out.push(out[out.length - offset]);
      if (k + 1 < count) {
        l = ll.base[l] + bits.read(ll.bits[l]);
        m = ml.base[m] + bits.read(ml.bits[m]);
        o = of.base[o] + bits.read(of.bits[o]);
      }
    }
    if (bits.left !== 0) throw damaged("its sequences do not end where they should");
    for (; taken < literals.length; taken++) out.push(literals[taken]);
  }
}

/**
 * Decompresses one frame.
 *
 * @param {Uint8Array} bytes
 * @param {number} limit the most bytes that may come of it
 */
export function decompressZstd(bytes, limit) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  must(bytes.length >= 6 && view.getUint32(0, true) === 0xfd2fb528, "The chunk is no zstd frame.");
  const descriptor = bytes[4];
  const oneSegment = (descriptor >> 5) & 1;
  const sizeFlag = descriptor >> 6;
  must((descriptor & 3) === 0, "The zstd frame needs a dictionary, which this decoder does not have.");
  let at = 5 + (oneSegment ? 0 : 1) + (sizeFlag === 0 ? oneSegment : 1 << sizeFlag);
  const frame = new Frame();
  for (let last = false; !last; ) {
    if (at + 3 > bytes.length) throw damaged("it is cut short");
    const head = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16);
    at += 3;
    last = (head & 1) === 1;
    const kind = (head >> 1) & 3;
    const size = head >> 3;
    const stored = kind === 1 ? 1 : size;
    if (at + stored > bytes.length || kind === 3) throw damaged("a block is cut short, or of an unknown kind");
    if (frame.out.length + size > limit + 131072) throw damaged("it is larger than it may be");
    if (kind === 0) for (let i = 0; i < size; i++) frame.out.push(bytes[at + i]);
    else if (kind === 1) for (let i = 0; i < size; i++) frame.out.push(bytes[at]);
    else frame.block(bytes.subarray(at, at + size));
    at += stored;
    if (frame.out.length > limit) throw damaged("it is larger than it may be");
  }
  return Uint8Array.from(frame.out);
}
