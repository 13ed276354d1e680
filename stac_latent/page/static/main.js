// The page: what is chosen, the panel, and what hands do.

const state = { chosen: null, shown: new Set(), blended: false, similar: null, stack: [], measure: 0, redraw: () => {} };
const LISTED = 200;

function setColours() {
  const { data } = state;
  const measure = data.measures[state.measure];
  state.colours = Array.from({ length: BINS }, (_, k) => rampColour(data.ramp, k / (BINS - 1)));
  state.bin = new Int16Array(state.shapes.count).fill(-1);
  const known = measure ? measure.values.filter((v) => v !== null).sort((a, b) => a - b) : [];
  $("key").classList.toggle("plain", !known.length);
  for (const id of ["measured", "scale"]) $(id).hidden = !known.length;
  if (!known.length) return groupByBin();
  const at = (share) => {
    const place = share * (known.length - 1);
    const low = Math.floor(place);
    return known[low] + (known[Math.min(low + 1, known.length - 1)] - known[low]) * (place - low);
  };
  const [low, high] = known.length > 2 ? [at(0.02), at(0.98)] : [known[0], known[known.length - 1]];
  measure.values.forEach((v, i) => {
    if (v === null) return;
    const unit = high > low ? Math.max(0, Math.min(1, (v - low) / (high - low))) : 0.5;
    state.bin[i] = Math.min(BINS - 1, Math.floor(unit * BINS));
  });
  $("ramp").style.background = `linear-gradient(to right, ${data.ramp.map((c) => css(c)).join(", ")})`;
  $("ticks").replaceChildren(...[figure(low), measure.unit, figure(high)].map((v) => element("span", v)));
  groupByBin();
  const none = measure.values.length - known.length;
  $("scale").title = `${known.length} items, 2nd to 98th percentile${none ? `; ${none} without a value are grey` : ""}`;
  drawHistogram(state.bin);
}

/** Placed items of each colour; the last group has no value. */
function groupByBin() {
  state.byBin = Array.from({ length: BINS + 1 }, () => []);
  for (let i = 0; i < state.shapes.count; i++) {
    if (placed(state.shapes, i)) state.byBin[state.bin[i] < 0 ? BINS : state.bin[i]].push(i);
  }
}

function drawHistogram(bin) {
  const bars = $("histogram");
  const counts = new Array(BINS).fill(0);
  for (const b of bin) if (b >= 0) counts[b]++;
  const most = Math.max(...counts);
  [bars.width, bars.height] = [BINS * 8, 60];
  const ctx = bars.getContext("2d");
  counts.forEach((n, k) => {
    const h = n ? Math.max(4, (n / most) * 60) : 0;
    ctx.fillStyle = css(state.colours[k]);
    ctx.fillRect(k * 8, 60 - h, 7, h);
  });
}

let waiting = false;
state.redraw = () => {
  state.stale = true;
  soon();
};

function soon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    if (state.stale || !glide()) frame();
  });
}

const SLOW = 6; // ms: from here on, the last frame is moved while hands move, and drawn anew a few times a second
const still = document.createElement("canvas");
still.view = null;

/** Move the last frame to where the view is now; false where a new one is due. */
function glide() {
  const now = performance.now();
  if (!still.view || now - still.view.drawn > 250) return false;
  const [k, turn] = [view.scale / still.view.scale, Math.round(still.view.x - view.x)];
  const [x, y] = [toScreenX(still.view.x - turn) - (view.width / 2) * k, toScreenY(still.view.y) - (view.height / 2) * k];
  pen.fillStyle = theme.ground;
  pen.fillRect(0, 0, view.width, view.height);
  pen.drawImage(still, x, y, view.width * k, view.height * k);
  clearTimeout(still.timer);
  still.timer = setTimeout(state.redraw, 100);
  return true;
}

function keep(ms) {
  still.view = null;
  if (ms < SLOW) return;
  [still.width, still.height] = [canvas.width, canvas.height];
  still.getContext("2d").drawImage(canvas, 0, 0);
  still.view = { ...view, drawn: performance.now() };
}

function frame() {
  state.stale = false;
  const start = performance.now();
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth, clientHeight } = canvas;
  [view.width, view.height] = [clientWidth, clientHeight];
  if (canvas.width !== Math.round(clientWidth * ratio) || canvas.height !== Math.round(clientHeight * ratio)) {
    canvas.width = Math.round(clientWidth * ratio);
    canvas.height = Math.round(clientHeight * ratio);
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = theme.ground;
  pen.fillRect(0, 0, clientWidth, clientHeight);
  drawLand(state.land);
  drawGraticule();
  if (state.chosen !== null) paintPicture();
  drawPictures(state);
  drawFootprints(state);
  if (state.chosen !== null) ring(state.shapes, state.chosen, 2.5, theme.accent);
  drawSimilar(state);
  if (state.similar) paintHits();
  const ms = performance.now() - start;
  keep(ms);
  canvas.dataset.ms = ms.toFixed(2);
}

function paintPicture() {
  const look = state.data.looks[state.chosen];
  state.blended = Boolean(look) && blend(state, state.chosen, Number($("slider").value), $("picture"));
}

// -- panel -------------------------------------------------------------------------------------------------------

const when = (i) => state.data.when[i].replace("T", " ").replace(/(:\d\d)?(\.\d+)?(Z|\+00:00)$/, "");

function choose(i, { reveal = false } = {}) {
  state.chosen = i;
  state.blended = false;
  $("item").hidden = i === null;
  if (i !== null) {
    const { data } = state;
    $("name").textContent = data.id[i];
    $("about").textContent = [when(i), data.collection.names[data.collection.at[i]]].filter(Boolean).join(" · ");
    const at = state.stack.indexOf(i);
    $("stack").textContent = state.stack.length > 1 && at >= 0 ? `${at + 1} of ${state.stack.length} here` : "";
    showLook(i);
    showFigures(i);
    if (reveal) revealShape(state.shapes, i);
    $("status").textContent = `${data.id[i]} chosen`;
  }
  listItems();
  state.redraw();
}

function revealShape(shapes, i, least = 160, share = 0.5) {
  if (!placed(shapes, i)) return;
  const box = [...shapes.box.subarray(4 * i, 4 * i + 4)];
  const size = Math.max(box[2] - box[0], box[3] - box[1]) * view.scale;
  const [x, y] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
  const seen = turns(x, y, x, y).length > 0;
  if (!seen || size < least || size > 3 * Math.max(view.width, view.height)) fit(box, share);
}

function showLook(i) {
  const look = state.data.looks[i];
  $("figure").hidden = !look;
  if (!look) return;
  const last = look.layers.length - 1;
  const slider = $("slider");
  slider.max = last;
  slider.hidden = last === 0;
  slider.value = standing(look);
  slider.setAttribute("aria-label", look.layers.map(([name]) => name).join(" to "));
  $("stops").replaceChildren(
    ...look.layers.map(([name], k) => {
      const stop = element("button", name);
      stop.type = "button";
      stop.addEventListener("click", () => slide(k));
      return stop;
    }),
  );
  $("said").textContent = look.notes.join(" ");
  slide(standing(look));
}

function slide(value) {
  $("slider").value = value;
  [...$("stops").children].forEach((stop, k) => stop.setAttribute("aria-pressed", String(Math.round(value) === k)));
  const look = state.data.looks[state.chosen];
  const name = look ? look.layers[Math.round(value)][0] : "";
  $("slider").setAttribute("aria-valuetext", name);
  $("picture").setAttribute("aria-label", `${name} picture of ${state.data.id[state.chosen]}`);
  state.redraw();
}

function showFigures(i) {
  const { data } = state;
  const rows = data.measures.filter((m) => m.values[i] !== null).map((m) => [m.title, `${figure(m.values[i])} ${m.unit}`]);
  for (const [title, column] of [["Asset", data.asset], ["Kind", data.kind], ["Space", data.space]]) {
    const value = column.names[column.at[i]];
    if (value) rows.push([title, title === "Space" ? value.slice(0, 19) : value]);
  }
  $("figures").replaceChildren(...rows.flatMap(([t, v]) => [element("dt", t), element("dd", v)]));
}

function listItems() {
  const { data } = state;
  const wanted = $("find").value.trim().toLowerCase();
  const rows = [];
  let more = 0;
  for (let i = 0; i < data.id.length; i++) {
    if (wanted && !`${data.id[i]} ${data.when[i]}`.toLowerCase().includes(wanted)) continue;
    if (rows.length === LISTED) more++;
    else rows.push(itemRow(i));
  }
  if (more) rows.push(element("li", `and ${more} more: narrow with the box above`, "small"));
  if (!rows.length) rows.push(element("li", "no item has that in its id or date", "small"));
  $("list").replaceChildren(...rows);
}

function itemRow(i) {
  const row = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  const dot = document.createElement("i");
  dot.style.background = css(state.bin[i] < 0 ? state.data.no_value : state.colours[state.bin[i]]);
  const what = element("span", state.data.id[i], "what");
  what.append(element("small", when(i)));
  const measure = state.data.measures[state.measure];
  button.append(dot, what, element("span", measure ? figure(measure.values[i]) : "", "much"));
  button.setAttribute("aria-current", String(i === state.chosen));
  button.addEventListener("click", () => {
    state.stack = [];
    choose(i, { reveal: true });
  });
  row.append(button);
  return row;
}

// -- similar places ----------------------------------------------------------------------------------------------

function search(x, y) {
  if (!state.places) return;
  const place = placeAt(state.places, x, y, state.chosen, 40 / view.scale);
  if (place === null) return;
  const value = cosines(state.places, place);
  const sorted = Float32Array.from(value).sort();
  const hits = distinct(state.places.shapes, best(value, 50 * HITS, place), place).slice(0, HITS);
  state.similar = { query: place, value, hits, low: sorted[Math.floor(0.9 * (sorted.length - 1))], painted: false };
  $("similar").hidden = false;
  $("query").textContent = `to ${position(place)}`;
  $("hits").replaceChildren(...hits.map((i, k) => hitRow(i, k, value[i])));
  $("status").textContent = `${hits.length} similar places; the best has a cosine of ${value[hits[0]]?.toFixed(3) ?? "none"}`;
  state.redraw();
}

function position(place) {
  const { centre } = state.places.shapes;
  return `${degrees(mercator.lat(centre[2 * place + 1]), "NS")}, ${degrees(mercator.lon(centre[2 * place]), "EW")}`;
}

function hitRow(i, rank, cosine) {
  const row = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  const item = state.places.item[i];
  const what = element("span", item < 0 ? "not among these items" : state.data.id[item], "what");
  what.append(element("small", position(i)), element("small", item < 0 ? "" : when(item)));
  button.append(element("b", String(rank + 1)), document.createElement("canvas"), what, element("span", cosine.toFixed(3), "much"));
  button.addEventListener("click", () => {
    state.stack = [];
    if (item >= 0) choose(item);
    revealShape(state.places.shapes, i, 6, 0.04);
    state.redraw();
  });
  row.append(button);
  return row;
}

function paintHits() {
  if (state.similar.painted) return;
  let all = true;
  [...$("hits").children].forEach((row, k) => {
    const target = row.querySelector("canvas");
    const item = state.places.item[state.similar.hits[k]];
    if (item < 0 || !state.data.looks[item]) target.hidden = true;
    else all = crop(state, state.similar.hits[k], target) && picture(state, item, standing(state.data.looks[item])) !== null && all;
  });
  state.similar.painted = all;
}

function forget() {
  state.similar = null;
  $("similar").hidden = true;
  state.redraw();
}

// -- hands -------------------------------------------------------------------------------------------------------

/** Items at a point of the screen, smallest first; small ones are met within a few pixels. */
function itemsAt(px, py) {
  const { shapes } = state;
  const [x, y] = toWorld(px, py);
  const reach = SMALL / view.scale;
  const out = [];
  for (let i = 0; i < shapes.count; i++) {
    if (!placed(shapes, i)) continue;
    const [x0, y0, x1, y1] = shapes.box.subarray(4 * i, 4 * i + 4);
    for (const turn of [0, -1, 1]) {
      const at = x - turn;
      if (at < x0 - reach || at > x1 + reach || y < y0 - reach || y > y1 + reach) continue;
      const size = Math.max(x1 - x0, y1 - y0);
      if (size < reach || holds(shapes, i, at, y)) out.push([size, i]);
    }
  }
  return out.sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, i]) => i);
}

function click(px, py) {
  const here = itemsAt(px, py);
  const again = here.length === state.stack.length && here.every((i, k) => i === state.stack[k]);
  const at = here.indexOf(state.chosen);
  state.stack = here;
  if (here.length) choose(here[again && at >= 0 && !state.places ? (at + 1) % here.length : Math.max(0, at)]);
  else choose(null);
  const [x, y] = toWorld(px, py);
  search(x - Math.floor(x), y);
}

/** Item before or after the chosen one: among those at the place that was clicked, else among all. */
function step(by) {
  const all = state.stack.length > 1 ? state.stack : Array.from(state.data.id.keys());
  const at = all.indexOf(state.chosen);
  const next = at < 0 ? (by > 0 ? 0 : all.length - 1) : (at + by + all.length) % all.length;
  choose(all[next], { reveal: true });
}

function searchHere() {
  const { shapes, chosen } = state;
  if (chosen === null || !placed(shapes, chosen)) return search(view.x, view.y);
  const [x0, y0, x1, y1] = shapes.box.subarray(4 * chosen, 4 * chosen + 4);
  return search((x0 + x1) / 2, (y0 + y1) / 2);
}

const pointers = new Map();
let travelled = 0;

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  if (pointers.size === 1) travelled = 0;
  $("tip").hidden = true;
});
canvas.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return hover(event);
  const now = [event.offsetX, event.offsetY];
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  if (other) {
    const [was, is] = [before, now].map(([x, y]) => Math.hypot(x - other[0], y - other[1]));
    zoomAt(is / Math.max(was, 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    travelled = Infinity;
  } else {
    move(now[0] - before[0], now[1] - before[1]);
    travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
  }
  pointers.set(event.pointerId, now);
  soon();
});
for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, (event) => {
    const tapped = pointers.delete(event.pointerId) && kind === "pointerup" && travelled < 6 && !pointers.size;
    if (tapped) click(event.offsetX, event.offsetY);
  });
}
canvas.addEventListener("pointerleave", () => ($("tip").hidden = true));
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomAt(Math.exp(-Math.max(-120, Math.min(120, event.deltaY)) / 300), event.offsetX, event.offsetY);
  soon();
}, { passive: false });

function hover({ offsetX, offsetY, pointerType }) {
  if (pointerType !== "mouse") return;
  const here = itemsAt(offsetX, offsetY);
  const tip = $("tip");
  tip.hidden = !here.length;
  canvas.style.cursor = here.length ? "pointer" : "";
  if (!here.length) return;
  const measure = state.data.measures[state.measure];
  const value = measure && measure.values[here[0]] !== null ? `, ${measure.title} ${figure(measure.values[here[0]])}` : "";
  tip.textContent = `${state.data.id[here[0]]}${value}${here.length > 1 ? `, and ${here.length - 1} more` : ""}`;
  tip.style.left = `${Math.min(offsetX + 14, view.width * 0.6)}px`;
  tip.style.top = `${offsetY + 16}px`;
}

const showAll = () => fit(extent(state.shapes));
const KEYS = {
  ArrowLeft: () => move(80, 0), ArrowRight: () => move(-80, 0), ArrowUp: () => move(0, 80), ArrowDown: () => move(0, -80),
  "+": () => zoomAt(1.6), "=": () => zoomAt(1.6), "-": () => zoomAt(1 / 1.6), _: () => zoomAt(1 / 1.6), 0: showAll,
  n: () => step(1), p: () => step(-1), s: searchHere,
  Enter: () => click(view.width / 2, view.height / 2),
  Escape: () => (state.similar ? forget() : choose(null)),
};
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
  soon();
});

function dark(on) {
  document.documentElement.dataset.theme = on ? "dark" : "light";
  readTheme();
  state.redraw();
}

function listen() {
  const doing = {
    in: () => zoomAt(2), out: () => zoomAt(0.5), all: showAll, before: () => step(-1), after: () => step(1), close: () => choose(null),
    forget, theme: () => dark(document.documentElement.dataset.theme !== "dark"),
  };
  for (const [id, act] of Object.entries(doing)) {
    $(id).addEventListener("click", () => {
      act();
      state.redraw();
    });
  }
  $("slider").addEventListener("input", () => slide(Number($("slider").value)));
  $("find").addEventListener("input", listItems);
  $("draped").addEventListener("change", state.redraw);
  $("measure").addEventListener("change", () => {
    state.measure = Number($("measure").value);
    setColours();
    listItems();
    state.redraw();
  });
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", () => dark(media.matches));
  dark(media.matches);
  new ResizeObserver(state.redraw).observe(canvas);
}

function unpackLand(rings) {
  return rings.map((steps) => {
    const out = new Float64Array(steps.length);
    for (let i = 0, lon = 0, lat = 0; i < steps.length; i += 2) {
      lon += steps[i];
      lat += steps[i + 1];
      out[i] = mercator.x(lon / 100);
      out[i + 1] = mercator.y(lat / 100);
    }
    return out;
  });
}

async function start() {
  const data = await readData();
  state.data = data;
  state.shapes = unpackShapes(data.shapes, data.unit);
  state.land = unpackLand(data.land);
  state.places = data.places ? unpackPlaces(data.places, data.unit) : null;
  document.title = data.title;
  $("title").textContent = data.title;
  const n = data.id.length;
  $("count").textContent = `${n.toLocaleString("en")} item${n === 1 ? "" : "s"}`;
  $("measure").replaceChildren(
    ...data.measures.map((m, i) => {
      const option = element("option", m.title);
      option.value = i;
      return option;
    }),
  );
  if (state.places) $("origin").textContent = `Cosine of ${data.places.count.toLocaleString("en")} vectors of ${data.places.dimensions} values, ${data.places.origin}; space ${data.places.space}.`;
  $("notes").hidden = !data.notes.length;
  $("notes").replaceChildren(...data.notes.map((note) => element("p", note)));
  setColours();
  listen();
  [view.width, view.height] = [canvas.clientWidth, canvas.clientHeight];
  showAll();
  listItems();
  state.redraw();
}

/** For scripts and tests: where things are on the screen, what is found, and the time of one frame [ms]. */
globalThis.latentMap = {
  at: (i, what = "items") => {
    const { box } = what === "items" ? state.shapes : state.places.shapes;
    return [toScreenX((box[4 * i] + box[4 * i + 2]) / 2), toScreenY((box[4 * i + 1] + box[4 * i + 3]) / 2)];
  },
  choose: (i) => choose(i, { reveal: true }),
  similar: () => state.similar && { query: state.similar.query, hits: state.similar.hits },
  frame: () => {
    frame();
    return Number(canvas.dataset.ms);
  },
};

start().then(
  () => (document.documentElement.dataset.ready = "yes"),
  (error) => {
    document.documentElement.dataset.ready = "failed";
    $("count").textContent = `This page could not be read: ${error.message}. It needs a browser of 2023 or later.`;
  },
);
