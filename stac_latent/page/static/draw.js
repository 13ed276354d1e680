// The map: land and graticule, pictures, footprints by colour, what is chosen.

const canvas = $("map");
const pen = canvas.getContext("2d");
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const BINS = 48;
const SMALL = 7; // pixels: a footprint that is smaller is drawn as a square of this size
const LAND_FADES = [12000, 50000]; // pixels of the world: the outlines are coarse

let theme = {};
function readTheme() {
  theme = Object.fromEntries(["ground", "land", "line", "ink", "soft", "paper", "accent", "edging"].map((n) => [n, style(n)]));
}

function rampColour(ramp, unit) {
  const at = Math.max(0, Math.min(1, unit)) * (ramp.length - 1);
  const low = Math.min(ramp.length - 2, Math.floor(at));
  return ramp[low].map((v, i) => Math.round(v + (ramp[low + 1][i] - v) * (at - low)));
}

const css = ([r, g, b], alpha = 1) => `rgba(${r}, ${g}, ${b}, ${alpha})`;

/** The rings of a shape, `turn` worlds to the right, as a path. */
function trace(shapes, i, turn) {
  for (let r = shapes.ringAt[i]; r < shapes.ringAt[i + 1]; r++) {
    for (let p = shapes.pointAt[r]; p < shapes.pointAt[r + 1]; p++) {
      const [x, y] = [toScreenX(shapes.xy[2 * p] + turn), toScreenY(shapes.xy[2 * p + 1])];
      if (p === shapes.pointAt[r]) pen.moveTo(x, y);
      else pen.lineTo(x, y);
    }
    pen.closePath();
  }
}

/** A shape, or a square in its place where it is too small to see. Calls once for each copy of the world. */
function outline(shapes, i, smallest = SMALL) {
  if (!placed(shapes, i)) return;
  const [x0, y0, x1, y1] = shapes.box.subarray(4 * i, 4 * i + 4);
  const small = Math.max(x1 - x0, y1 - y0) * view.scale < smallest;
  for (const turn of turns(x0, y0, x1, y1)) {
    if (small) {
      pen.rect(toScreenX((x0 + x1) / 2 + turn) - smallest / 2, toScreenY((y0 + y1) / 2) - smallest / 2, smallest, smallest);
    } else trace(shapes, i, turn);
  }
}

function drawLand(land) {
  const alpha = 1 - (view.scale - LAND_FADES[0]) / (LAND_FADES[1] - LAND_FADES[0]);
  if (alpha <= 0) return;
  pen.globalAlpha = Math.min(1, alpha);
  pen.beginPath();
  for (const turn of turns(0, 0, 1, 1)) {
    for (const ring of land) {
      for (let i = 0; i < ring.length; i += 2) {
        const [x, y] = [toScreenX(ring[i] + turn), toScreenY(ring[i + 1])];
        if (i === 0) pen.moveTo(x, y);
        else pen.lineTo(x, y);
      }
      pen.closePath();
    }
  }
  pen.fillStyle = theme.land;
  pen.fill("evenodd");
  pen.globalAlpha = 1;
}

function drawGraticule() {
  const steps = [30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];
  const wanted = (110 / view.scale) * 360;
  const step = steps.filter((s) => s >= wanted).pop() ?? 30;
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const [west, north] = toWorld(0, 0);
  const [east, south] = toWorld(view.width, view.height);
  pen.strokeStyle = theme.line;
  pen.fillStyle = theme.soft;
  pen.font = "11px system-ui, sans-serif";
  pen.lineWidth = 1;
  pen.beginPath();
  const labels = [];
  for (let k = Math.ceil(mercator.lon(west) / step); k * step <= mercator.lon(east); k++) {
    const x = Math.round(toScreenX(mercator.x(k * step))) + 0.5;
    pen.moveTo(x, 0);
    pen.lineTo(x, view.height);
    const lon = ((((k * step + 180) % 360) + 360) % 360) - 180;
    labels.push([degrees(lon, "EW", digits), x + 4, view.height - 6]);
  }
  const [low, high] = [mercator.lat(Math.min(1, south)), mercator.lat(Math.max(0, north))];
  for (let k = Math.ceil(low / step); k * step <= high; k++) {
    const y = Math.round(toScreenY(mercator.y(k * step))) + 0.5;
    pen.moveTo(0, y);
    pen.lineTo(view.width, y);
    if (y > 14 && y < view.height - 24) labels.push([degrees(k * step, "NS", digits), view.width - 6, y - 4, "right"]);
  }
  pen.stroke();
  for (const [text, x, y, align = "left"] of labels) {
    pen.textAlign = align;
    pen.fillText(text, x, y);
  }
}

/** A picture in the place of its window: one affine piece, or a net of them where it is large on the globe. */
function drape(picture, corners) {
  const [tl, tr, br, bl] = corners;
  const span = Math.max(...corners.map((c) => c[0])) - Math.min(...corners.map((c) => c[0])) + Math.max(...corners.map((c) => c[1])) - Math.min(...corners.map((c) => c[1]));
  const n = Math.max(1, Math.min(16, Math.ceil(span / 1.5)));
  const at = (u, v) => {
    const mix = (i) => (1 - v) * ((1 - u) * tl[i] + u * tr[i]) + v * ((1 - u) * bl[i] + u * br[i]);
    return [mercator.x(mix(0)), mercator.y(mix(1))];
  };
  const [w, h] = [picture.width / n, picture.height / n];
  const ends = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
  const box = [Math.min(...ends.map((e) => e[0])), Math.min(...ends.map((e) => e[1])), Math.max(...ends.map((e) => e[0])), Math.max(...ends.map((e) => e[1]))];
  for (const turn of turns(...box)) {
    for (let r = 0; r < n; r++) {
      for (let c = 0; c < n; c++) {
        const [a, b, d] = [at(c / n, r / n), at((c + 1) / n, r / n), at(c / n, (r + 1) / n)];
        const [ox, oy] = [toScreenX(a[0] + turn), toScreenY(a[1])];
        const s = view.scale;
        pen.save();
        pen.transform(((b[0] - a[0]) * s) / w, ((b[1] - a[1]) * s) / w, ((d[0] - a[0]) * s) / h, ((d[1] - a[1]) * s) / h, ox, oy);
        const over = n > 1 ? Math.min(w, h) * 0.02 : 0;
        pen.drawImage(picture, c * w, r * h, w, h, 0, 0, w + over, h + over);
        pen.restore();
      }
    }
  }
}

/** Footprints by colour: small ones as squares, the others of a colour in one path. Ten thousand take some milliseconds. */
function drawFootprints(state) {
  const { shapes, byBin, bin, colours, data, shown } = state;
  const bare = [...shown].filter((i) => placed(shapes, i));
  byBin.forEach((members, k) => {
    const [large, small] = [[], []];
    for (const i of members) if (!shown.has(i)) (shapes.size[i] * view.scale >= SMALL ? large : small).push(i);
    pen.fillStyle = theme.edging;
    for (const i of small) square(shapes.centre[2 * i], shapes.centre[2 * i + 1], SMALL + 2);
    pen.fillStyle = css(k === BINS ? data.no_value : colours[k], k === BINS ? 0.5 : 0.9);
    for (const i of small) square(shapes.centre[2 * i], shapes.centre[2 * i + 1], SMALL);
    if (!large.length) return;
    if (k === BINS) pen.fillStyle = css(data.no_value, 0.2);
    pen.beginPath();
    for (const i of large) outline(shapes, i);
    pen.fill();
    pen.lineWidth = 1;
    pen.strokeStyle = theme.edging;
    pen.stroke();
  });
  for (const i of bare) {
    pen.beginPath();
    outline(shapes, i);
    pen.lineWidth = 4;
    pen.strokeStyle = theme.paper;
    pen.stroke();
    pen.lineWidth = 2.5;
    pen.strokeStyle = css(bin[i] < 0 ? data.no_value : colours[bin[i]]);
    pen.stroke();
  }
}

/** A square in the place of what is too small to see, once for each copy of the world on the screen. */
function square(x, y, side) {
  const top = Math.round(toScreenY(y)) - (side >> 1);
  if (top < -side || top > view.height) return;
  const half = view.width / 2 / view.scale;
  for (let turn = Math.ceil(view.x - half - x); turn <= view.x + half - x; turn++) {
    pen.fillRect(Math.round(toScreenX(x + turn)) - (side >> 1), top, side, side);
  }
}

function ring(shapes, i, width, colour, smallest = SMALL + 4) {
  pen.beginPath();
  outline(shapes, i, smallest);
  pen.lineJoin = "round";
  pen.lineWidth = width + 3;
  pen.strokeStyle = theme.paper;
  pen.stroke();
  pen.lineWidth = width;
  pen.strokeStyle = colour;
  pen.stroke();
}
