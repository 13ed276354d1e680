// Between cells of latents and coefficients of tiles: the order of channels.

import { LatentError, must } from "./errors.js";
import { inverse } from "./wavelet.js";

/**
 * Channels of bands: by band; of each the low band, then details from coarse to fine, orientation 0, 1, 2, samples row by row.
 *
 * @returns {{band: number, array: number, level: number, y: number, x: number}[]} place of each channel in Mallat's layout:
 *   sample (cellY * n + y, cellX * n + x) of a quadrant, n samples of a cell
 */
export function channelsOf(arrays) {
  const channels = [];
  for (const [d, array] of arrays.entries()) {
    for (const band of array) {
      channels.push({ band, array: d, level: 3 - d, orientation: -1, n: 1, y: 0, x: 0 });
      for (let level = 3 - d; level >= 1; level--) {
        const n = 8 >> (level + d);
        for (let orientation = 0; orientation < 3; orientation++) {
          for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) channels.push({ band, array: d, level, orientation, n, y, x });
        }
      }
    }
  }
  return channels;
}

/** Calls `visit(channel, cell, band, place)` for each coefficient of rows x columns cells. */
function walk(arrays, rows, columns, visit) {
  for (const [k, c] of channelsOf(arrays).entries()) {
    const width = (columns * 8) >> c.array;
    const lowH = rows * c.n;
    const lowW = columns * c.n;
    const y0 = c.orientation >= 1 ? lowH : 0;
    const x0 = c.orientation === 0 || c.orientation === 2 ? lowW : 0;
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        visit(k, i * columns + j, c.band, (y0 + i * c.n + c.y) * width + x0 + j * c.n + c.x);
      }
    }
  }
}

/** Coefficients of bands (of `decodeCoefficients`) as cells: (channel, y, x). */
export function toCells(bands, arrays, rows, columns) {
  const count = arrays.reduce((sum, a, d) => sum + a.length * (64 >> (2 * d)), 0);
  const cells = new Float32Array(count * rows * columns);
  walk(arrays, rows, columns, (k, cell, band, place) => {
    cells[k * rows * columns + cell] = bands[band].data[place];
  });
  return cells;
}

/** Cells as coefficients of bands, in Mallat's layout. */
export function fromCells(cells, arrays, rows, columns) {
  const bands = arrays.flatMap((array, d) => array.map(() => {
    const [height, width] = [(rows * 8) >> d, (columns * 8) >> d];
    return { data: new Float32Array(height * width), height, width, array: d };
  }));
  walk(arrays, rows, columns, (k, cell, band, place) => {
    bands[band].data[place] = cells[k * rows * columns + cell];
  });
  return bands;
}

/** Coefficients to samples, in place. */
export function synthesise(bands) {
  for (const band of bands) inverse(band.data, band.height, band.width, 3 - band.array, 0);
  return bands;
}

/** Stored symbols to numbers, by the fields of an asset. */
export function dequantise(symbols, asset, channelSize) {
  const method = asset["latent:quantization"];
  if (method === "none" || method === "round") return Float32Array.from(symbols);
  if (method !== "linear" && method !== "power") throw new LatentError(`Quantisation by ${method} is not known to this decoder.`);
  const scale = asset["latent:quantization_scale"];
  const shift = asset["latent:quantization_offset"] ?? [0];
  const power = method === "power" ? asset["latent:quantization_power"] : 1;
  const of = (list, c) => (list.length === 1 ? list[0] : list[c]);
  must(Array.isArray(scale), "The asset lacks latent:quantization_scale.");
  const out = new Float32Array(symbols.length);
  for (let i = 0; i < out.length; i++) {
    const c = Math.floor(i / channelSize);
    const q = symbols[i];
    const magnitude = Math.abs(q) * of(scale, c);
    out[i] = Math.sign(q) * (power === 1 ? magnitude : magnitude ** power) + of(shift, c);
  }
  return out;
}
