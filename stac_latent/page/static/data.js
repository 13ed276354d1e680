// What the page holds: one deflated JSON document in base64, in it arrays of numbers in base64.

const $ = (id) => document.getElementById(id);

function bytesOf(text) {
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

async function readData() {
  const packed = bytesOf($("data").textContent);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/** Web Mercator: the world is a square of side 1, north up. */
const mercator = {
  x: (lon) => lon / 360 + 0.5,
  y: (lat) => {
    const most = 85.0511;
    const bound = Math.max(-most, Math.min(most, lat));
    return 0.5 - Math.log(Math.tan(Math.PI / 4 + (bound * Math.PI) / 360)) / (2 * Math.PI);
  },
  lon: (x) => (x - 0.5) * 360,
  lat: (y) => (Math.atan(Math.exp((0.5 - y) * 2 * Math.PI)) * 360) / Math.PI - 90,
};

/** Shapes of `pack` in shapes.py: points in Mercator, where rings begin, and a box around each shape. */
function unpackShapes(packed, unit) {
  const rings = bytesOf(packed.rings);
  const points = bytesOf(packed.points);
  const steps = new Int32Array(bytesOf(packed.xy).buffer);
  const n = rings.length;
  const xy = new Float64Array(steps.length);
  for (let i = 0, lon = 0, lat = 0; i < steps.length; i += 2) {
    lon += steps[i];
    lat += steps[i + 1];
    xy[i] = mercator.x(lon * unit);
    xy[i + 1] = mercator.y(lat * unit);
  }
  const ringAt = new Uint32Array(n + 1);
  const pointAt = new Uint32Array(points.length + 1);
  for (let i = 0; i < n; i++) ringAt[i + 1] = ringAt[i] + rings[i];
  for (let i = 0; i < points.length; i++) pointAt[i + 1] = pointAt[i] + points[i];
  const box = new Float64Array(4 * n).fill(NaN);
  const size = new Float64Array(n);
  const centre = new Float64Array(2 * n);
  for (let i = 0; i < n; i++) {
    let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let p = pointAt[ringAt[i]]; p < pointAt[ringAt[i + 1]]; p++) {
      x0 = Math.min(x0, xy[2 * p]);
      x1 = Math.max(x1, xy[2 * p]);
      y0 = Math.min(y0, xy[2 * p + 1]);
      y1 = Math.max(y1, xy[2 * p + 1]);
    }
    if (x0 > x1) continue;
    box.set([x0, y0, x1, y1], 4 * i);
    size[i] = Math.max(x1 - x0, y1 - y0);
    centre.set([(x0 + x1) / 2, (y0 + y1) / 2], 2 * i);
  }
  return { count: n, xy, ringAt, pointAt, box, size, centre };
}

const placed = (shapes, i) => shapes.ringAt[i + 1] > shapes.ringAt[i];

/** Whether a point of the world lies in a shape. */
function holds(shapes, i, x, y) {
  let inside = false;
  for (let r = shapes.ringAt[i]; r < shapes.ringAt[i + 1]; r++) {
    const [first, end] = [shapes.pointAt[r], shapes.pointAt[r + 1]];
    for (let p = first, q = end - 1; p < end; q = p++) {
      const [px, py, qx, qy] = [shapes.xy[2 * p], shapes.xy[2 * p + 1], shapes.xy[2 * q], shapes.xy[2 * q + 1]];
      if (py > y !== qy > y && x < ((qx - px) * (y - py)) / (qy - py) + px) inside = !inside;
    }
  }
  return inside;
}

/** An element with a class and text; text from catalogues comes in by this way alone. */
function element(tag, text = "", kind = "") {
  const out = document.createElement(tag);
  out.textContent = text;
  if (kind) out.className = kind;
  return out;
}

const figure = (v) => (v === null ? "–" : Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(2) : String(+v.toPrecision(4)));

function degrees(v, letters, digits = 3) {
  return `${Math.abs(v).toFixed(digits)}° ${letters[v < 0 ? 1 : 0]}`;
}
