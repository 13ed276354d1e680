// The page: Items on a map, decoded in the browser from what range requests read of their stores.

import { LatentError } from "../lib/errors.js";
import { openAsset } from "../lib/open.js";
import { WorkerPool } from "../lib/pool.js";
import { HttpSource } from "../lib/source.js";
import { DEEPEST, SHEETS, TileCache, Tiles } from "./tiles.js";
import { Placed, View } from "./view.js";

const find = (id) => document.getElementById(id);
const AT_ONCE = 24; // tiles that are read and decoded at one time
const SMALLEST = 24; // pixels of the screen below which an Item is an outline

const canvas = find("map");
const source = new HttpSource();
const pool = new WorkerPool();
const cache = new TileCache();
const layers = [];
const loading = new Map();
const failed = new Map();
let chosen = null; // names of the three bands
let style = { key: "", tables: [() => 0, () => 0, () => 0] };
let limits = new Map(); // by name of a band: lowest and highest value that is shown
let dirty = false;
let current = -1;

const view = new View(canvas, () => draw());

let later = 0;

/** Paints when some tiles have come: not for each by itself. */
function drawSoon() {
  later ||= setTimeout(() => {
    later = 0;
    draw();
  }, 100);
}

function draw() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(() => {
    dirty = false;
    paint();
  });
}

/** Opens an Item's asset the first time that it is looked at. */
function open(layer) {
  if (layer.state) return;
  layer.state = "opening";
  const href = new URL(layer.item.href, document.baseURI).href;
  openAsset(source, href, layer.item.asset, { ignore: ["residual", "sparse_fallback"] }).then((image) => {
    layer.image = image;
    layer.state = "open";
    layer.tiles = image.lattices.map((lattice, k) => new Tiles(image, lattice, cache, pool, `${layer.number}.${k}`));
    if (!chosen) choose(image);
    draw();
  }).catch((error) => {
    layer.state = "failed";
    complain(`${layer.item.id}: ${error.message}`);
  });
}

function complain(text) {
  const problem = find("problem");
  problem.hidden = false;
  problem.textContent = text.slice(0, 600);
}

/** Bands to begin with: those called red, green and blue, else the first three. */
function choose(image) {
  const bands = image.bands;
  const named = ["red", "green", "blue"].map((name) => bands.find((b) => b.commonName === name));
  const first = bands.filter((b) => b.lattice === bands[0].lattice);
  chosen = named.every((b) => b && b.lattice === named[0].lattice)
    ? named.map((b) => b.name)
    : [0, 1, 2].map((i) => first[Math.min(i, first.length - 1)].name);
  for (const [k, id] of ["r", "g", "b"].entries()) {
    const select = find(id);
    select.replaceChildren(...bands.map((band) => {
      const option = document.createElement("option");
      option.value = band.name;
      option.textContent = band.commonName && band.commonName !== band.name ? `${band.name} (${band.commonName})` : band.name;
      return option;
    }));
    select.value = chosen[k];
    select.onchange = () => {
      chosen[k] = select.value;
      // Bands of one picture are of one lattice: the others follow.
      const lattice = (name) => bands.find((b) => b.name === name)?.lattice;
      for (let other = 0; other < 3; other++) if (lattice(chosen[other]) !== lattice(chosen[k])) chosen[other] = chosen[k];
      for (const [i, name] of ["r", "g", "b"].entries()) find(name).value = chosen[i];
      restyle();
    };
  }
  restyle();
}

/** Which lattice of a layer has the chosen bands, and their numbers there. */
function bandsOf(layer) {
  const bands = chosen.map((name) => layer.image.bands.find((b) => b.name === name));
  if (bands.some((b) => !b || b.lattice !== bands[0].lattice)) return null;
  return { tiles: layer.tiles[bands[0].lattice], numbers: bands.map((b) => b.local) };
}

function restyle() {
  const gamma = Number(find("gamma").value);
  const tables = chosen.map((name) => {
    const [low, high] = limits.get(name) ?? [0, 1];
    const curve = Uint8Array.from({ length: 1024 }, (_, i) => Math.round(255 * (i / 1023) ** (1 / gamma)));
    const factor = 1023 / Math.max(high - low, 1e-9);
    return (v) => curve[Math.min(1023, Math.max(0, Math.round((v - low) * factor))) || 0];
  });
  style = { key: JSON.stringify([chosen, gamma, chosen.map((name) => limits.get(name))]), tables };
  draw();
}

/** Limits of the chosen bands from what is on the screen: the 2nd and the 98th percentile. */
function stretch(entries, always) {
  for (const name of new Set(chosen)) {
    if (!always && limits.has(name)) continue;
    const values = [];
    for (const { layer, entry } of entries) {
      const at = bandsOf(layer)?.numbers[chosen.indexOf(name)];
      const sample = entry.samples.get(at);
      if (!sample) continue;
      const step = Math.max(1, Math.floor(sample.data.length / 400));
      for (let i = 0; i < sample.data.length; i += step) if (sample.data[i] > 0 || sample.data[i] < 0) values.push(sample.data[i]);
    }
    if (values.length < 50) continue;
    values.sort((a, b) => a - b);
    limits.set(name, [values[Math.floor(values.length * 0.02)], values[Math.floor(values.length * 0.98)]]);
  }
  restyle();
}

const overlaps = ([x0, y0, x1, y1]) => x1 >= 0 && y1 >= 0 && x0 <= view.width && y0 <= view.height;

function boxOnScreen(points) {
  const xs = points.map((p) => p[0]);
  const ys = points.map((p) => p[1]);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

let shown = [];
let noted = 0;

function paint() {
  const density = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(view.width * density) || canvas.height !== Math.round(view.height * density)) {
    canvas.width = Math.round(view.width * density);
    canvas.height = Math.round(view.height * density);
  }
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const line = getComputedStyle(document.body).getPropertyValue("--strong");
  const wanted = [];
  shown = [];
  let coarsest = 0;
  for (const layer of layers) {
    const { placed } = layer;
    const corners = [[0, 0], [0, placed.width], [placed.height, placed.width], [placed.height, 0]].map(([r, c]) => view.toScreen(placed.at(r, c)));
    const box = boxOnScreen(corners);
    if (!overlaps(box)) continue;
    const large = Math.max(box[2] - box[0], box[3] - box[1]);
    if (large >= SMALLEST) open(layer);
    if (large >= SMALLEST && layer.state === "open" && chosen) {
      const found = bandsOf(layer);
      if (found) coarsest = Math.max(coarsest, paintLayer(context, density, layer, found, wanted));
    }
    context.setTransform(density, 0, 0, density, 0, 0);
    context.strokeStyle = line;
    context.lineWidth = layer.number === current ? 2 : 1;
    context.globalAlpha = layer.number === current ? 1 : 0.5;
    context.beginPath();
    for (const [x, y] of corners) context.lineTo(x, y);
    context.closePath();
    context.stroke();
    context.globalAlpha = 1;
  }
  request(wanted);
  report(wanted, coarsest);
  clearTimeout(noted);
  noted = setTimeout(() => history.replaceState(null, "", `#${view.text}`), 400);
}

/** Draws a rectangle of a picture so that three of its corners come to lie at p, q (to the right) and r (below). */
function place(context, density, picture, [sx, sy, sw, sh], p, q, r) {
  // A little larger than it is, so that no seam is seen.
  const u = 0.5 / Math.max(Math.hypot(q[0] - p[0], q[1] - p[1]), 1);
  const v = 0.5 / Math.max(Math.hypot(r[0] - p[0], r[1] - p[1]), 1);
  const right = [(q[0] - p[0]) * density, (q[1] - p[1]) * density];
  const down = [(r[0] - p[0]) * density, (r[1] - p[1]) * density];
  context.setTransform(
    (right[0] * (1 + 2 * u)) / sw, (right[1] * (1 + 2 * u)) / sw, (down[0] * (1 + 2 * v)) / sh, (down[1] * (1 + 2 * v)) / sh,
    p[0] * density - right[0] * u - down[0] * v, p[1] * density - right[1] * u - down[1] * v,
  );
  context.drawImage(picture, sx, sy, sw, sh, 0, 0, sw, sh);
}

/** Draws a sheet in patches, as many as there are places known of the Item. */
function paintSheet(context, density, layer, tiles, sheet, screen) {
  const { shape, padding } = tiles.lattice;
  const patches = layer.placed.n - 1;
  for (let i = 0; i < patches; i++) {
    for (let j = 0; j < patches; j++) {
      const [y0, y1] = [i, i + 1].map((k) => (k * shape[0]) / patches);
      const [x0, x1] = [j, j + 1].map((k) => (k * shape[1]) / patches);
      const corners = [screen(y0, x0), screen(y0, x1), screen(y1, x0), screen(y1, x1)];
      if (!overlaps(boxOnScreen(corners))) continue;
      const from = [(x0 + padding[2]) / sheet.size, (y0 + padding[0]) / sheet.size, (x1 - x0) / sheet.size, (y1 - y0) / sheet.size];
      place(context, density, sheet.canvas, from, corners[0], corners[1], corners[2]);
    }
  }
}

/** Draws what there is of a layer, and lists what is missing. */
function paintLayer(context, density, layer, { tiles, numbers }, wanted) {
  const { placed } = layer;
  const rows = placed.height / tiles.lattice.shape[0]; // of another lattice than the asset's
  const columns = placed.width / tiles.lattice.shape[1];
  const screen = (y, x) => view.toScreen(placed.at(y * rows, x * columns));
  // Levels halve what is read: the finest that the screen has pixels for.
  const middle = tiles.lattice.shape.map((n) => n / 2);
  const [a, b] = [screen(...middle), screen(middle[0], middle[1] + 1)];
  const perPixel = Math.hypot(b[0] - a[0], b[1] - a[1]) * density;
  const level = Math.max(0, Math.min(tiles.deepest, Math.floor(Math.log2(1 / perPixel) + 0.25)));
  context.imageSmoothingEnabled = perPixel < 2;
  const own = level >= SHEETS ? tiles.sheet(level, numbers, style) : null;
  const seen = [];
  let missing = false;
  for (let i = 0; i < tiles.down; i++) {
    for (let j = 0; j < tiles.across; j++) {
      const [y0, x0, y1, x1] = tiles.box(i, j);
      if (y1 <= y0 || x1 <= x0) continue;
      const at = boxOnScreen([screen(y0, x0), screen(y0, x1), screen(y1, x0), screen(y1, x1)]);
      if (!overlaps(at)) continue;
      if (own && tiles.onSheet(own, level, i, j, numbers, style)) continue;
      const key = tiles.key(i, j, level, numbers);
      const entry = cache.get(key);
      if (entry) {
        seen.push({ i, j, entry });
        continue;
      }
      missing = true;
      const far = Math.hypot((at[0] + at[2] - view.width) / 2, (at[1] + at[3] - view.height) / 2);
      if (!failed.has(key)) wanted.push({ key, tiles, i, j, level, numbers, far });
      for (let other = 0; other < SHEETS; other++) {
        const instead = other === level ? null : cache.get(tiles.key(i, j, other, numbers));
        if (instead) seen.push({ i, j, entry: instead });
      }
    }
  }
  if (missing) {
    // What is coarser, until all has come.
    for (let other = DEEPEST; other >= SHEETS; other--) {
      const sheet = other !== level && tiles.sheets?.has(`${other}|${numbers.join()}`) ? tiles.sheet(other, numbers, style) : null;
      if (sheet) paintSheet(context, density, layer, tiles, sheet, screen);
    }
  }
  if (own) paintSheet(context, density, layer, tiles, own, screen);
  for (const { i, j, entry } of seen) {
    const { canvas: picture, shown: [top, left, height, width] } = tiles.picture(entry, i, j, numbers, style);
    place(context, density, picture, [0, 0, picture.width, picture.height], screen(top, left), screen(top, left + width), screen(top + height, left));
    if (shown.length < 64) shown.push({ layer, entry });
  }
  if (own) {
    for (let k = 0; k < tiles.down * tiles.across && shown.length < 64; k += Math.max(1, Math.floor((tiles.down * tiles.across) / 60))) {
      const entry = cache.get(tiles.key(Math.floor(k / tiles.across), k % tiles.across, level, numbers));
      if (entry) shown.push({ layer, entry });
    }
  }
  return level;
}

let queue = [];

/** Asks for the nearest of what is missing; gives up what is no longer looked at. */
function request(wanted) {
  const names = new Set(wanted.map((w) => w.key));
  for (const [key, abort] of loading) {
    if (names.has(key)) continue;
    abort.abort();
    loading.delete(key);
  }
  queue = wanted.filter(({ key }) => !loading.has(key)).sort((a, b) => b.far - a.far);
  pump();
}

function pump() {
  while (loading.size < AT_ONCE && queue.length > 0) {
    const { key, tiles, i, j, level, numbers } = queue.pop();
    const abort = new AbortController();
    loading.set(key, abort);
    tiles.load(i, j, level, numbers, abort.signal).catch((error) => {
      if (abort.signal.aborted) return;
      failed.set(key, error);
      complain(`${tiles.image.item.id}, tile ${i}, ${j}: ${error.message}`);
      if (!(error instanceof LatentError)) console.error(error);
    }).finally(() => {
      if (loading.get(key) !== abort) return;
      loading.delete(key);
      pump();
      drawSoon();
    });
  }
}

const whole = new Intl.NumberFormat("en");
const megabytes = (n) => (n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : `${(n / 1e6).toFixed(1)} MB`);
let settled = 0;

function report(wanted, level) {
  const open = wanted.length;
  const rate = pool.jobs ? `${(pool.took / pool.jobs).toFixed(0)} ms a tile` : "";
  find("status").textContent = [open ? `${whole.format(open)} tiles to come` : "", `${megabytes(source.bytes)} read`, `${whole.format(source.requests)} requests`, rate].filter(Boolean).join(" · ");
  const tip = find("tip");
  tip.hidden = shown.length === 0;
  tip.textContent = level === 0 ? "all levels: the pixels themselves" : `1 / ${2 ** level} of the size: ${level} of the wavelet levels left out`;
  const done = open === 0 && loading.size === 0 && shown.length > 0;
  if ((done || shown.length >= 12) && chosen?.some((name) => !limits.has(name))) stretch(shown, false);
  document.documentElement.dataset.ready = done && ++settled ? "yes" : "no";
  document.documentElement.dataset.settled = String(settled);
}

function facts(layer) {
  current = layer.number;
  const rows = Object.entries({ Date: layer.item.when, Size: layer.item.size.slice().reverse().join(" x "), PSNR: layer.item.psnr && `${layer.item.psnr.toFixed(1)} dB`, Rate: layer.item.rate && `${layer.item.rate.toFixed(2)} bits`, Note: layer.item.note });
  find("facts").replaceChildren(...rows.filter(([, value]) => value).flatMap(([name, value]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
  for (const button of find("items").querySelectorAll("button")) button.setAttribute("aria-current", String(Number(button.dataset.number) === current));
}

const everything = () => layers.map((l) => l.placed.box).reduce((a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])]);

async function start() {
  const answer = await fetch("items.json");
  const data = await answer.json();
  find("title").textContent = document.title = data.title;
  for (const [number, item] of data.items.entries()) layers.push({ number, item, placed: new Placed(item), state: null });
  find("items").replaceChildren(...layers.map((layer) => {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.number = String(layer.number);
    button.textContent = layer.item.id;
    const when = document.createElement("small");
    when.textContent = [layer.item.when, layer.item.asset].filter(Boolean).join(" · ");
    button.append(when);
    button.onclick = () => {
      // The one that was chosen is drawn last.
      layers.push(...layers.splice(layers.indexOf(layer), 1));
      facts(layer);
      view.fit(layer.placed.box);
    };
    row.append(button);
    return row;
  }));
  find("in").onclick = () => view.zoom(2);
  find("out").onclick = () => view.zoom(0.5);
  find("all").onclick = () => view.fit(everything());
  canvas.addEventListener("keydown", (e) => e.key === "0" && view.fit(everything()));
  find("gamma").oninput = () => chosen && restyle();
  find("stretch").onclick = () => chosen && stretch(shown, true);
  new ResizeObserver(() => draw()).observe(canvas);
  if (layers.length) facts(layers[0]);
  if (!view.goTo(location.hash.slice(1))) view.fit(everything());
  addEventListener("hashchange", () => location.hash.slice(1) !== view.text && view.goTo(location.hash.slice(1)));
  globalThis.latentMap = { view, source, pool, layers, cache };
}

start().catch((error) => complain(`The page has no list of items (items.json): ${error.message}`));
