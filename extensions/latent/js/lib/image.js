// Pixels of an asset: whole, of a window, or coarse.

import { crc32, crc32c } from "./bits.js";
import { dequantise, fromCells, synthesise, toCells } from "./cells.js";
import { must } from "./errors.js";
import { coarse, decodeCoefficients, decodePayload } from "./parts.js";
import { arrayOf, keepApart, nodataOf, toPixels } from "./pixels.js";
import { MoreWords } from "./planes.js";
import { decodeSymbols, invertStages } from "./rans.js";
import { applyResidual } from "./residual.js";
import { side } from "./wavelet.js";

/** Samples of a tile that is stored as a difference to a key frame: gains are of the low band, then of details, coarsest first. */
function withReference(job) {
  const { bytes, model, arrays, reference } = job;
  const [own, other] = [bytes, reference.bytes].map((payload) => decodeCoefficients(payload, model, arrays));
  must(own.height === other.height && own.width === other.width, "The key frame's chunk is of another size.");
  for (const [b, band] of own.bands.entries()) {
    for (let y = 0; y < band.height; y++) {
      for (let x = 0; x < band.width; x++) {
        // Level of the coefficient: the quadrant of Mallat's layout in which it lies.
        let level = 0;
        for (let l = 3 - band.array; l >= 1 && level === 0; l--) {
          if (y < side(band.height, l) && x < side(band.width, l)) continue;
          level = y < side(band.height, l - 1) && x < side(band.width, l - 1) ? 4 - l - band.array : 0;
        }
        const i = y * band.width + x;
        band.data[i] = band.data[i] + Math.fround(Math.fround(reference.gains[level] / 16) * other.bands[b].data[i]);
      }
    }
  }
  return own;
}

function tileOf(job) {
  const { bytes, model, arrays, wanted, level, partial } = job;
  if (!job.cells && !job.reference) return decodePayload(bytes, model, arrays, { wanted: new Set(wanted), level, partial });
  const bands = job.cells ? fromCells(job.cells, arrays, job.rows, job.columns) : withReference(job).bands;
  return { bands: coarse(synthesise(bands), level) };
}

/** What is asked of one tile; made where the image is, done there or in a worker. */
export function decodeJob(job) {
  const { wanted, level, partial, bands } = job;
  let tile;
  try {
    tile = tileOf(job);
  } catch (error) {
    if (partial && error instanceof MoreWords) return { more: true };
    throw error;
  }
  const out = wanted.map((b) => {
    const { data, height, width, array } = tile.bands[b];
    const { mean, unit } = bands[b];
    if (level === 0) {
      const pixels = toPixels(data, bands[b], mean, unit);
      return { data: job.base ? pixels : keepApart(pixels, bands[b]), height, width };
    }
    // The low band of n levels is 2^n times the mean of its samples.
    const factor = unit / 2 ** Math.max(0, level - (array ?? 0));
    const values = data.length * 4 === data.buffer.byteLength ? data : data.slice();
    for (let i = 0; i < values.length; i++) values[i] = values[i] * factor + mean;
    return { data: values, height, width };
  });
  return { bands: out, bytesRead: tile.bytesRead ?? 0 };
}

/** Runs jobs where it is called. */
export const here = { run: async (job) => decodeJob(job) };

function bandFacts(image, lattice) {
  return lattice.bands.map((band) => ({
    data_type: band.data_type, nodata: band.nodata, mean: image.codec.mean[band.index], unit: image.codec.unit[band.index],
  }));
}

/** Samples of one tile of a lattice, of the bands `wanted` (numbers within the lattice); null where it is not stored. */
export async function readTile(image, lattice, row, column, wanted, options = {}) {
  const { level = 0, runner = here, signal } = options;
  const place = [0, row, column];
  const { shape } = lattice.latent.extent(place);
  const [, rows, columns] = shape;
  const job = { model: lattice.model, arrays: lattice.arrays, wanted, level, bands: bandFacts(image, lattice), partial: false, base: options.base ?? false };
  if (!lattice.coded) {
    const chunk = await lattice.latent.readChunk(place, signal);
    must(chunk, lacking(lattice, row, column));
    const numbers = dequantise(crop(chunk, lattice.latent.chunk, shape), image.asset, rows * columns);
    return runner.run({ ...job, cells: numbers, rows, columns });
  }
  const reference = await referenceOf(lattice, row, column, signal);
  const start = level > 0 && !reference ? await startOf(lattice, row, column, level, signal) : null;
  if (start) {
    const bytes = await lattice.latent.readStored(place, start.size, signal);
    must(bytes && crc32c(bytes) === start.crc, `The beginning of the chunk at ${row}, ${column} of ${lattice.latent.path} is damaged: its CRC-32C differs.`);
    const done = await runner.run({ ...job, bytes, partial: true });
    must(!done.more, `The chunk at ${row}, ${column} is damaged: what the store says of its beginning is not enough.`);
    return done;
  }
  if (level > 0 && options.share !== undefined && !reference) {
    const where = await lattice.latent.locate(place);
    must(where, lacking(lattice, row, column));
    const whole = where.range?.length ?? Infinity;
    let bytes = new Uint8Array(0);
    for (let share = options.share; share < 0.8 && whole !== Infinity; share *= 1.5) {
      const most = Math.min(whole, Math.max(256, Math.ceil(whole * share)));
      bytes = join(bytes, await lattice.latent.readStored(place, most, signal, bytes.length));
      const done = await runner.run({ ...job, bytes, partial: true });
      if (!done.more) return { ...done, share: done.bytesRead / whole };
    }
  }
  const [stored, bytes] = await payloadOf(lattice, row, column, signal);
  const done = await runner.run({ ...job, bytes, reference });
  const first = done.bands[0];
  const size = 2 ** Math.max(level, lattice.bands[wanted[0]].array);
  must(first.height === Math.ceil((rows * 8) / size) && first.width === Math.ceil((columns * 8) / size), `The chunk at ${row}, ${column} is damaged: it is of another size than its place.`);
  return { ...done, share: done.bytesRead / stored.length };
}

/** Bytes at the beginning of a chunk that hold a level, and their CRC-32C; null where the store does not say it. */
async function startOf(lattice, row, column, level, signal) {
  const { prefix, latent } = lattice;
  if (!prefix) return null;
  const [reductions, two, down, across] = prefix.shape;
  must(prefix.dataType === "uint32" && two === 2 && down === latent.grid[1] && across === latent.grid[2], `Array ${prefix.path} is not of the chunks of ${latent.path}.`);
  if (reductions === 0) return null;
  if (!lattice.starts) {
    lattice.starts = readWhole(prefix, signal);
    lattice.starts.catch(() => { lattice.starts = undefined; });
  }
  const values = await lattice.starts;
  const of = (value) => values[((Math.min(level, reductions) - 1) * 2 + value) * down * across + row * across + column];
  return of(0) === 0 ? null : { size: of(0), crc: of(1) };
}

const lacking = (lattice, row, column) => `The store lacks the chunk at ${row}, ${column} of ${lattice.latent.path}: it is incomplete.`;

/** Stored bytes and payload of a chunk. */
async function payloadOf(lattice, row, column, signal) {
  const stored = await lattice.latent.readStored([0, row, column], Infinity, signal);
  must(stored, lacking(lattice, row, column));
  return [stored, await lattice.latent.unpack(stored, stored.length)];
}

/** The key frame's payload and the gains of a tile; null where the tile stands alone. */
async function referenceOf(lattice, row, column, signal) {
  const { reference } = lattice;
  if (!reference) return null;
  lattice.gains ??= Promise.all([readWhole(reference.gains), readWhole(reference.checksums)]);
  const [gains, checksums] = await lattice.gains;
  const [, down, across] = lattice.latent.grid;
  must(!gains.includes(255), "A chunk of the gains on the key frame is missing.");
  const own = Array.from({ length: reference.gains.shape[0] }, (_, l) => gains[(l * down + row) * across + column]);
  if (own.every((g) => g === 0)) return null;
  const [, bytes] = await payloadOf(reference.lattice, row, column, signal);
  must(crc32(bytes) === checksums[row * across + column], `The key frame ${reference.id} has changed since this date was coded against it: the checksum of chunk ${row}, ${column} differs.`);
  return { bytes, gains: own };
}

/** All of a small array. */
async function readWhole(array, signal = undefined) {
  const out = new array.Type(array.shape.reduce((a, b) => a * b, 1)).fill(array.fill);
  const places = array.grid.reduce((all, n) => all.flatMap((p) => Array.from({ length: n }, (_, i) => [...p, i])), [[]]);
  for (const place of places) {
    const chunk = await array.readChunk(place, signal);
    if (!chunk) continue;
    const { start, shape } = array.extent(place);
    const count = shape.reduce((a, b) => a * b, 1);
    for (let k = 0; k < count; k++) {
      let [rest, from, to] = [k, 0, 0];
      const index = shape.map(() => 0);
      for (let d = shape.length - 1; d >= 0; d--) [index[d], rest] = [rest % shape[d], Math.floor(rest / shape[d])];
      for (let d = 0; d < shape.length; d++) {
        from = from * array.chunk[d] + index[d];
        to = to * array.shape[d] + start[d] + index[d];
      }
      out[to] = chunk[from];
    }
  }
  return out;
}

/** Replaces the pixels of a tile by those within its bounds. */
async function bounded(lattice, row, column, tile, signal) {
  const { residual, padding, shape } = lattice;
  const stored = await residual.array.readChunk([row, column, 0], signal);
  must(stored, `The store lacks the residual of chunk ${row}, ${column}: it is incomplete.`);
  must(residual.array.grid[2] === 1, "The residual has several chunks along its bytes, which this reader does not know.");
  const view = new DataView(stored.buffer, stored.byteOffset, stored.byteLength);
  const length = view.getUint32(0, true);
  if (length === 0xffffffff) {
    must(residual.sparse, `The residual of chunk ${row}, ${column} is missing: the asset promises one for each.`);
    return;
  }
  must(length <= stored.length - 4, "The residual is damaged: it is longer than its chunk.");
  const [, tileRows, tileColumns] = lattice.latent.chunk;
  const [y, x] = [row * tileRows * 8 - padding[0], column * tileColumns * 8 - padding[2]];
  const [y0, x0] = [Math.max(0, y), Math.max(0, x)];
  const height = Math.min(shape[0], y + tileRows * 8) - y0;
  const width = Math.min(shape[1], x + tileColumns * 8) - x0;
  const masks = (await readMask(lattice, y0, x0, height, width, signal)) ?? lattice.bands.map(() => null);
  const types = lattice.bands.map((b) => b.data_type);
  const base = lattice.bands.map((band, b) => {
    const own = tile.bands[b];
    const out = new own.data.constructor(height * width);
    for (let r = 0; r < height; r++) {
      const from = ((r + y0 - y) >> band.array) * own.width;
      for (let c = 0; c < width; c++) out[r * width + c] = own.data[from + ((c + x0 - x) >> band.array)];
    }
    return out;
  });
  const pixels = await applyResidual(stored.subarray(4, 4 + length), base, masks, types, height, width);
  for (const [b, band] of lattice.bands.entries()) {
    const own = tile.bands[b];
    const step = (1 << band.array) - 1; // of repeated pixels the first counts
    for (let r = 0; r < height; r++) {
      if ((r + y0 - y) & step) continue;
      const to = ((r + y0 - y) >> band.array) * own.width;
      for (let c = 0; c < width; c++) {
        if (((c + x0 - x) & step) === 0) own.data[to + ((c + x0 - x) >> band.array)] = pixels[b][r * width + c];
      }
    }
  }
}

function join(a, b) {
  if (a.length === 0) return b;
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}

/** The corner of a chunk that lies within its array. */
function crop(chunk, full, shape) {
  if (full.every((n, i) => n === shape[i])) return chunk;
  const out = new chunk.constructor(shape.reduce((a, b) => a * b, 1));
  let at = 0;
  for (let c = 0; c < shape[0]; c++) {
    for (let y = 0; y < shape[1]; y++) {
      const from = (c * full[1] + y) * full[2];
      out.set(chunk.subarray(from, from + shape[2]), at);
      at += shape[2];
    }
  }
  return out;
}

/** Whether a chunk of the mask is stored, by `latent:mask_chunks`; true where nothing is known. */
function maskStored(lattice, number) {
  if (lattice.maskChunks === null) return true;
  return ((parseInt(lattice.maskChunks[number >> 2] ?? "0", 16) >> (3 - (number & 3))) & 1) === 1;
}

/** Valid pixels of a window of a lattice's grid, for each of its bands; null where all are valid. */
export async function readMask(lattice, y0, x0, height, width, signal = undefined) {
  const mask = lattice.mask;
  if (!mask) return null;
  const [maskBands] = mask.shape;
  const [chunkBands, chunkH, chunkW] = mask.chunk;
  const [, across] = [mask.grid[1], mask.grid[2]];
  const out = Array.from({ length: maskBands }, () => null);
  const jobs = [];
  for (let b = 0; b < mask.grid[0]; b++) {
    for (let i = Math.floor(y0 / chunkH); i * chunkH < y0 + height && i < mask.grid[1]; i++) {
      for (let j = Math.floor(x0 / chunkW); j * chunkW < x0 + width && j < across; j++) {
        if (maskStored(lattice, (b * mask.grid[1] + i) * across + j)) jobs.push([b, i, j]);
      }
    }
  }
  lattice.maskCache ??= new Map();
  await Promise.all(jobs.map(async ([b, i, j]) => {
    const name = `${b}/${i}/${j}`;
    if (!lattice.maskCache.has(name)) {
      const reading = mask.readChunk([b, i, j], signal);
      reading.catch(() => lattice.maskCache.delete(name));
      lattice.maskCache.set(name, reading);
    }
    const chunk = await lattice.maskCache.get(name);
    if (!chunk) return;
    for (let k = 0; k < chunkBands && b * chunkBands + k < maskBands; k++) {
      out[b * chunkBands + k] ??= new Uint8Array(height * width).fill(1);
      const target = out[b * chunkBands + k];
      for (let y = Math.max(y0, i * chunkH); y < Math.min(y0 + height, (i + 1) * chunkH); y++) {
        const from = Math.max(x0, j * chunkW);
        const to = Math.min(x0 + width, (j + 1) * chunkW);
        const row = (k * chunkH + y - i * chunkH) * chunkW - j * chunkW;
        target.set(chunk.subarray(row + from, row + to), (y - y0) * width + from - x0);
      }
    }
  }));
  if (out.every((m) => m === null)) return null;
  return lattice.bands.map((_, k) => out[maskBands === 1 ? 0 : k]);
}

/** Value of pixels without data. */
export function fillOf(band) {
  const nodata = nodataOf(band);
  if (nodata !== null) return nodata;
  return band.data_type.startsWith("float") ? NaN : 0;
}

/**
 * Pixels of bands, each on its own grid and in its stored type.
 *
 * @param {object} image of `openAsset`
 * @param {object} options `bands` (numbers; default all), `window` ({y, x, height, width} of the asset's grid; default all), `runner`, `signal`
 * @returns {Promise<{name: string, data: ArrayLike<number>, height: number, width: number, y: number, x: number, transform: number[]}[]>}
 */
export async function readPixels(image, options = {}) {
  const { runner = here, signal } = options;
  const chosen = options.bands ?? image.bands.map((b) => b.index);
  const out = chosen.map((index) => {
    const band = image.bands[index];
    must(band, `There is no band ${index}; the asset has ${image.bands.length}.`);
    const part = windowOf(image, band, options.window);
    const Type = arrayOf(band.data_type);
    const [a, , c, , e, f] = band.transform;
    return { band, name: band.name, ...part, data: new Type(part.height * part.width), transform: [a, 0, c + part.x * a, 0, e, f + part.y * e] };
  });
  if (image.codec.rans) await fillFromSymbols(image, out, signal);
  const lattices = image.codec.rans ? [] : image.lattices;
  await Promise.all(lattices.map(async (lattice, number) => {
    const own = out.filter((o) => o.band.lattice === number && o.height > 0 && o.width > 0);
    if (own.length === 0) return;
    const [, tileRows, tileColumns] = lattice.latent.chunk;
    const tiles = new Map();
    for (const o of own) {
      const { band } = o;
      const th = (tileRows * 8) >> band.array;
      const tw = (tileColumns * 8) >> band.array;
      const [y, x] = [o.y + band.offset[0], o.x + band.offset[1]];
      for (let i = Math.floor(y / th); i * th < y + o.height; i++) {
        for (let j = Math.floor(x / tw); j * tw < x + o.width; j++) {
          const key = `${i}/${j}`;
          if (!tiles.has(key)) tiles.set(key, { i, j, parts: [] });
          tiles.get(key).parts.push(o);
        }
      }
    }
    await Promise.all([...tiles.values()].map(async ({ i, j, parts }) => {
      // A residual belongs to the pixels of all bands.
      const { residual } = lattice;
      const wanted = residual ? lattice.bands.map((b) => b.local) : parts.map((o) => o.band.local);
      const tile = await readTile(image, lattice, i, j, wanted, { runner, signal, base: residual !== null });
      if (residual) {
        await bounded(lattice, i, j, tile, signal);
        for (const [b, band] of lattice.bands.entries()) keepApart(tile.bands[b].data, band);
      }
      for (const [k, o] of parts.entries()) paste(o, tile.bands[residual ? o.band.local : k], i, j, tileRows * 8, tileColumns * 8);
    }));
    await applyMask(lattice, own, signal);
  }));
  return out.map(({ band, ...rest }) => ({ ...rest, dataType: band.data_type }));
}

/** Pixels of the chains of `stac-latent-rans-1`, whose cells need their neighbours: the whole array is decoded. */
async function fillFromSymbols(image, out, signal) {
  const [lattice] = image.lattices;
  const { latent } = lattice;
  const [channels, rows, columns] = latent.shape;
  const all = new Int16Array(channels * rows * columns);
  for (let i = 0; i < latent.grid[1]; i++) {
    for (let j = 0; j < latent.grid[2]; j++) {
      const { start, shape } = latent.extent([0, i, j]);
      const full = [channels, latent.chunk[1], latent.chunk[2]];
      let symbols;
      if (lattice.coded) {
        const [, bytes] = await payloadOf(lattice, i, j, signal);
        const found = await decodeSymbols(bytes, image.codec.rans, channels);
        must(found.rows === full[1] && found.columns === full[2], `The chunk at ${i}, ${j} is damaged: it is of another size than its place.`);
        symbols = found.symbols;
      } else {
        symbols = await latent.readChunk([0, i, j], signal);
        must(symbols, lacking(lattice, i, j));
      }
      const part = crop(symbols, full, shape);
      for (let c = 0; c < channels; c++) {
        for (let y = 0; y < shape[1]; y++) {
          const from = (c * shape[1] + y) * shape[2];
          all.set(part.subarray(from, from + shape[2]), (c * rows + start[1] + y) * columns + start[2]);
        }
      }
    }
  }
  const planes = invertStages(all, rows, columns, image.codec);
  const size = planes.rows * planes.columns;
  for (const o of out) {
    const { index, offset } = o.band;
    const samples = planes.data.subarray(index * size, (index + 1) * size).map((v) => v / 16);
    const pixels = keepApart(toPixels(samples, o.band, image.codec.mean[index], image.codec.unit[index]), o.band);
    for (let y = 0; y < o.height; y++) {
      const from = (o.y + offset[0] + y) * planes.columns + o.x + offset[1];
      o.data.set(pixels.subarray(from, from + o.width), y * o.width);
    }
  }
  await applyMask(lattice, out, signal);
}

/** Part of a band that lies in a window of the asset's grid. */
function windowOf(image, band, window) {
  const [height, width] = band.shape;
  if (!window) return { y: 0, x: 0, height, width };
  const [a, , c, , e, f] = image.asset["proj:transform"];
  const [ba, , bc, , be, bf] = band.transform;
  const clip = (v, n) => Math.min(Math.max(v, 0), n);
  const y = clip(Math.floor((f + window.y * e - bf) / be + 1e-6), height);
  const x = clip(Math.floor((c + window.x * a - bc) / ba + 1e-6), width);
  const toY = clip(Math.ceil((f + (window.y + window.height) * e - bf) / be - 1e-6), height);
  const toX = clip(Math.ceil((c + (window.x + window.width) * a - bc) / ba - 1e-6), width);
  return { y, x, height: Math.max(0, toY - y), width: Math.max(0, toX - x) };
}

function paste(o, tile, i, j, tileH, tileW) {
  const { band } = o;
  const [ty, tx] = [((i * tileH) >> band.array) - band.offset[0], ((j * tileW) >> band.array) - band.offset[1]];
  const { height: h, width: w } = tile;
  for (let y = Math.max(o.y, ty); y < Math.min(o.y + o.height, ty + h); y++) {
    const from = Math.max(o.x, tx);
    const to = Math.min(o.x + o.width, tx + w);
    const at = (y - o.y) * o.width - o.x;
    o.data.set(tile.data.subarray((y - ty) * w + from - tx, (y - ty) * w + to - tx), at + from);
  }
}

/** Nodata where a pixel is not valid. */
async function applyMask(lattice, own, signal) {
  // Windows in pixels of the lattice's grid, where the mask is.
  const { padding } = lattice;
  const boxes = own.map((o) => {
    const size = 2 ** o.band.array;
    return { y: (o.y + o.band.offset[0]) * size - padding[0], x: (o.x + o.band.offset[1]) * size - padding[2], height: o.height * size, width: o.width * size, size };
  });
  for (const [k, o] of own.entries()) {
    const box = boxes[k];
    const masks = await readMask(lattice, box.y, box.x, box.height, box.width, signal);
    const mask = masks?.[o.band.local];
    if (!mask) continue;
    const fill = fillOf(o.band);
    for (let y = 0; y < o.height; y++) {
      for (let x = 0; x < o.width; x++) {
        if (!mask[y * box.size * box.width + x * box.size]) o.data[y * o.width + x] = fill;
      }
    }
  }
}

/** The array `latent` (channel, y, x) of the first lattice, as float32; NaN in cells without a valid pixel. */
export async function readLatents(image) {
  const [lattice] = image.lattices;
  const { latent } = lattice;
  const [channels, rows, columns] = latent.shape;
  const out = new Float32Array(channels * rows * columns).fill(NaN);
  for (let i = 0; i < latent.grid[1]; i++) {
    for (let j = 0; j < latent.grid[2]; j++) {
      const { start, shape } = latent.extent([0, i, j]);
      let cells;
      if (lattice.coded) {
        const [, bytes] = await payloadOf(lattice, i, j);
        if (image.codec.rans) {
          const { symbols, rows: r, columns: w } = await decodeSymbols(bytes, image.codec.rans, channels);
          cells = dequantise(crop(symbols, [channels, r, w], shape), image.asset, shape[1] * shape[2]);
        } else {
          const reference = await referenceOf(lattice, i, j);
          const job = { bytes, model: lattice.model, arrays: lattice.arrays, reference };
          const { bands } = reference ? withReference(job) : decodeCoefficients(bytes, lattice.model, lattice.arrays);
          cells = toCells(bands, lattice.arrays, shape[1], shape[2]);
        }
      } else {
        const chunk = await latent.readChunk([0, i, j]);
        must(chunk, lacking(lattice, i, j));
        cells = dequantise(crop(chunk, latent.chunk, shape), image.asset, shape[1] * shape[2]);
      }
      for (let c = 0; c < channels; c++) {
        for (let y = 0; y < shape[1]; y++) {
          const from = (c * shape[1] + y) * shape[2];
          out.set(cells.subarray(from, from + shape[2]), (c * rows + start[1] + y) * columns + start[2]);
        }
      }
    }
  }
  await blankCells(lattice, out, channels, rows, columns);
  return { data: out, shape: [channels, rows, columns] };
}

async function blankCells(lattice, cells, channels, rows, columns) {
  if (lattice.valid) {
    // Of an embedding: per cent of valid pixels of each cell.
    const valid = await readWhole(lattice.valid);
    for (let cell = 0; cell < rows * columns; cell++) {
      if (valid[cell] === 0) for (let c = 0; c < channels; c++) cells[c * rows * columns + cell] = NaN;
    }
    return;
  }
  const [height, width] = lattice.shape;
  const masks = await readMask(lattice, 0, 0, height, width);
  const [top, , left] = lattice.padding;
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      let valid = masks === null || masks.some((m) => m === null);
      for (let y = Math.max(0, i * 8 - top); !valid && y < Math.min(height, i * 8 - top + 8); y++) {
        for (let x = Math.max(0, j * 8 - left); !valid && x < Math.min(width, j * 8 - left + 8); x++) {
          valid = masks.some((m) => m[y * width + x] !== 0);
        }
      }
      if (valid) continue;
      for (let c = 0; c < channels; c++) cells[(c * rows + i) * columns + j] = NaN;
    }
  }
}
