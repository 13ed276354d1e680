// From samples of a band to what was stored: offset, unit, rounding, clipping (docs/lin.md, last section).

import { LatentError } from "./errors.js";

const INTEGERS = {
  uint8: [Uint8Array, 0, 255], int8: [Int8Array, -128, 127],
  uint16: [Uint16Array, 0, 65535], int16: [Int16Array, -32768, 32767],
  uint32: [Uint32Array, 0, 4294967295], int32: [Int32Array, -2147483648, 2147483647],
};
const FLOATS = { float32: Float32Array, float64: Float64Array };

/** Nearest whole number, ties to even. */
export function roundEven(v) {
  const r = Math.round(v);
  return r - v === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

/** The typed array of a data type. */
export function arrayOf(dataType) {
  const Type = INTEGERS[dataType]?.[0] ?? FLOATS[dataType];
  if (!Type) throw new LatentError(`Bands of type ${dataType} are not known to this decoder.`);
  return Type;
}

/** Nodata as a number; STAC writes NaN and infinities as text. */
export function nodataOf(band) {
  const { nodata } = band;
  if (nodata === null || nodata === undefined) return null;
  if (typeof nodata === "number") return nodata;
  return { nan: NaN, inf: Infinity, "-inf": -Infinity }[String(nodata)] ?? Number(nodata);
}

/**
 * Samples in float32 to pixels in stored units.
 *
 * @param {Float32Array} samples
 * @param {object} band `data_type`, `nodata`
 * @param {number} mean
 * @param {number} unit
 */
export function toPixels(samples, band, mean, unit) {
  const Type = arrayOf(band.data_type);
  const out = new Type(samples.length);
  const sixteenth = unit / 16;
  const integer = INTEGERS[band.data_type];
  if (!integer) {
    for (let i = 0; i < samples.length; i++) out[i] = samples[i] * 16 * sixteenth + mean;
    return out;
  }
  const [, lowest, high] = integer;
  const low = nodataOf(band) === lowest ? lowest + 1 : lowest;
  for (let i = 0; i < samples.length; i++) {
    const v = samples[i] * 16 * sixteenth + mean;
    const r = Math.floor(v + 0.5);
    // Exactly between two whole numbers: the even one.
    const n = r - v === 0.5 && r % 2 !== 0 ? r - 1 : r;
    out[i] = n < low ? low : n > high ? high : n;
  }
  return out;
}

/** The next larger float of a type. */
function nextFloat(v, dataType) {
  if (v === Infinity) return v;
  if (v === 0) return dataType === "float32" ? 2 ** -149 : 5e-324;
  const view = new DataView(new ArrayBuffer(8));
  if (dataType === "float32") {
    view.setFloat32(0, v);
    view.setInt32(0, view.getInt32(0) + (v > 0 ? 1 : -1));
    return view.getFloat32(0);
  }
  view.setFloat64(0, v);
  view.setBigInt64(0, view.getBigInt64(0) + (v > 0 ? 1n : -1n));
  return view.getFloat64(0);
}

/** Moves valid pixels that have the value of nodata to the next value: above, or below where there is none. In place. */
export function keepApart(pixels, band) {
  const nodata = nodataOf(band);
  if (nodata === null || Number.isNaN(nodata)) return pixels;
  const integer = INTEGERS[band.data_type];
  const instead = !integer ? nextFloat(nodata, band.data_type) : nodata === integer[2] ? nodata - 1 : nodata + 1;
  for (let i = 0; i < pixels.length; i++) if (pixels[i] === nodata) pixels[i] = instead;
  return pixels;
}
