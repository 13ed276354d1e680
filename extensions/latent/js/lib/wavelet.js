// The CDF 9/7 wavelet by lifting, in float32 (docs/lin.md, "From planes to pixels").

const f = Math.fround;
const A = f(-1.586134342059924);
const B = f(-0.052980118572961);
const C = f(0.882911075530934);
const D = f(0.443506852043971);
const K = f(1.149604398860241);
const INVERSE_K = f(1 / 1.149604398860241);

/** target[t + i] += sign * factor * (data[p + i] + data[q + i]) for n samples. */
function lift(data, t, p, q, n, factor) {
  for (let i = 0; i < n; i++) data[t + i] = data[t + i] + f(factor * f(data[p + i] + data[q + i]));
}

function scale(data, t, n, factor) {
  for (let i = 0; i < n; i++) data[t + i] = data[t + i] * factor;
}

/** Along y: rows of lows and details, in place, then woven. */
function rowsBack(data, height, width, stride, spare) {
  if (height === 1) return;
  const ns = (height + 1) >> 1;
  const nd = height >> 1;
  const s = (i) => Math.min(i, ns - 1) * stride;
  const d = (i) => (ns + Math.min(Math.max(i, 0), nd - 1)) * stride;
  for (let i = 0; i < ns; i++) scale(data, s(i), width, INVERSE_K);
  for (let i = 0; i < nd; i++) scale(data, d(i), width, K);
  for (let i = 0; i < ns; i++) lift(data, s(i), d(i - 1), d(i), width, -D);
  for (let i = 0; i < nd; i++) lift(data, d(i), s(i), s(i + 1), width, -C);
  for (let i = 0; i < ns; i++) lift(data, s(i), d(i - 1), d(i), width, -B);
  for (let i = 0; i < nd; i++) lift(data, d(i), s(i), s(i + 1), width, -A);
  for (let y = 0; y < height; y++) {
    const from = y & 1 ? d(y >> 1) : s(y >> 1);
    spare.set(data.subarray(from, from + width), y * width);
  }
  for (let y = 0; y < height; y++) data.set(spare.subarray(y * width, (y + 1) * width), y * stride);
}

/** Along x: each row by itself. */
function columnsBack(data, height, width, stride, low, high) {
  if (width === 1) return;
  const ns = (width + 1) >> 1;
  const nd = width >> 1;
  for (let y = 0; y < height; y++) {
    const row = y * stride;
    // One sample of margin on each side holds what stands beyond the ends.
    for (let i = 0; i < ns; i++) low[i] = data[row + i] * INVERSE_K;
    for (let i = 0; i < nd; i++) high[i + 1] = data[row + ns + i] * K;
    high[0] = high[1];
    high[nd + 1] = high[nd];
    for (let i = 0; i < ns; i++) low[i] = low[i] - f(D * f(high[i] + high[i + 1]));
    low[ns] = low[ns - 1];
    for (let i = 1; i <= nd; i++) high[i] = high[i] - f(C * f(low[i - 1] + low[i]));
    high[0] = high[1];
    high[nd + 1] = high[nd];
    for (let i = 0; i < ns; i++) low[i] = low[i] - f(B * f(high[i] + high[i + 1]));
    low[ns] = low[ns - 1];
    for (let i = 1; i <= nd; i++) high[i] = high[i] - f(A * f(low[i - 1] + low[i]));
    for (let i = 0; i < nd; i++) {
      data[row + 2 * i] = low[i];
      data[row + 2 * i + 1] = high[i + 1];
    }
    if (ns > nd) data[row + width - 1] = low[nd];
  }
}

/** Sides of the low band after `level` levels. */
export const side = (n, level) => Math.ceil(n / 2 ** level);

/**
 * Inverts levels `from`, `from - 1`, ..., `to + 1` of one band in Mallat's layout, in place.
 * Rows are `width` apart; the result is the upper left of `data`.
 */
export function inverse(data, height, width, from, to) {
  if (from <= to) return;
  const spare = new Float32Array(side(height, to) * side(width, to));
  const low = new Float32Array((width >> 1) + 3);
  const high = new Float32Array((width >> 1) + 3);
  for (let level = from; level > to; level--) {
    const h = side(height, level - 1);
    const w = side(width, level - 1);
    rowsBack(data, h, w, width, spare);
    columnsBack(data, h, w, width, low, high);
  }
}

function step(line, n, factor, odd) {
  // line[i] += factor * (its two neighbours) for i of one parity; beyond an end the one neighbour counts twice.
  for (let i = odd ? 1 : 0; i < n; i += 2) {
    const left = i > 0 ? line[i - 1] : line[i + 1];
    const right = i + 1 < n ? line[i + 1] : line[i - 1];
    line[i] = line[i] + f(factor * f(left + right));
  }
}

function lineForward(line, n, out) {
  if (n === 1) {
    out[0] = line[0];
    return;
  }
  const ns = (n + 1) >> 1;
  step(line, n, A, true);
  step(line, n, B, false);
  step(line, n, C, true);
  step(line, n, D, false);
  for (let i = 0; i < n; i++) out[i & 1 ? ns + (i >> 1) : i >> 1] = i & 1 ? line[i] * INVERSE_K : line[i] * K;
}

/** Levels 1 to `levels` forward, in place, along x first. */
export function forward(data, height, width, levels) {
  const line = new Float32Array(Math.max(height, width));
  const out = new Float32Array(Math.max(height, width));
  for (let level = 1; level <= levels; level++) {
    const h = side(height, level - 1);
    const w = side(width, level - 1);
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) line[x] = data[y * width + x];
      lineForward(line, w, out);
      for (let x = 0; x < w; x++) data[y * width + x] = out[x];
    }
    for (let x = 0; x < w; x++) {
      for (let y = 0; y < h; y++) line[y] = data[y * width + x];
      lineForward(line, h, out);
      for (let y = 0; y < h; y++) data[y * width + x] = out[y];
    }
  }
}
