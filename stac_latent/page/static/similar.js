// Similar places: the cosine of int8 vectors, by brute force.

const HITS = 12;

function unpackPlaces(packed, unit) {
  const k = packed.dimensions;
  const vectors = new Int8Array(bytesOf(packed.vectors).buffer);
  const norm = new Float32Array(packed.count);
  for (let i = 0; i < packed.count; i++) {
    let sum = 0;
    for (let j = i * k; j < (i + 1) * k; j++) sum += vectors[j] * vectors[j];
    norm[i] = Math.sqrt(sum);
  }
  return { count: packed.count, k, vectors, norm, item: new Int32Array(bytesOf(packed.item).buffer), shapes: unpackShapes(packed.shapes, unit) };
}

/** Cosines (count,) of all places with one of them. */
function cosines({ count, k, vectors, norm }, query) {
  const out = new Float32Array(count);
  const wanted = vectors.subarray(query * k, (query + 1) * k);
  for (let i = 0; i < count; i++) {
    let sum = 0;
    for (let j = 0, at = i * k; j < k; j++, at++) sum += vectors[at] * wanted[j];
    out[i] = sum / (norm[i] * norm[query]);
  }
  return out;
}

/** Positions of the largest values, best first, one left out. */
function best(values, count, without) {
  const order = [];
  for (let i = 0; i < values.length; i++) {
    if (i === without || (order.length === count && values[i] <= values[order[count - 1]])) continue;
    let at = order.length;
    while (at > 0 && values[order[at - 1]] < values[i]) at--;
    order.splice(at, 0, i);
    if (order.length > count) order.pop();
  }
  return order;
}

/** Places in their order without those that lie on the query or on one before: other dates of a place are that place. */
function distinct(shapes, order, query) {
  const kept = [query];
  for (const i of order) {
    const [x0, y0, x1, y1] = shapes.box.subarray(4 * i, 4 * i + 4);
    const [x, y] = [(x0 + x1) / 2, (y0 + y1) / 2];
    const on = kept.some((k) => x > shapes.box[4 * k] && x < shapes.box[4 * k + 2] && y > shapes.box[4 * k + 1] && y < shapes.box[4 * k + 3]);
    if (!on) kept.push(i);
    if (kept.length > HITS) break;
  }
  return kept.slice(1);
}

/** The place that holds a point of the world, of the wanted item if it has one there; else the nearest within reach. */
function placeAt({ count, shapes, item }, x, y, wanted, reach) {
  let [found, nearest, distance] = [null, null, reach];
  for (let i = 0; i < count; i++) {
    const [x0, y0, x1, y1] = shapes.box.subarray(4 * i, 4 * i + 4);
    for (const turn of [0, -1, 1]) {
      const px = x - turn;
      if (px >= x0 && px <= x1 && y >= y0 && y <= y1 && holds(shapes, i, px, y)) {
        if (item[i] === wanted) return i;
        found ??= i;
      }
      const d = Math.hypot(px - (x0 + x1) / 2, y - (y0 + y1) / 2);
      if (d < distance) [nearest, distance] = [i, d];
    }
  }
  return found ?? nearest;
}

/** Places that are points as dots; all places more strongly the more similar they are, the best tenth in eight steps. */
function drawSimilar(state) {
  const { places, similar } = state;
  if (places && places.shapes.size.every((s) => s === 0)) {
    pen.fillStyle = theme.ink;
    for (let i = 0; i < places.count; i++) square(places.shapes.centre[2 * i], places.shapes.centre[2 * i + 1], 3);
  }
  if (!similar) return;
  const steps = Array.from({ length: 8 }, () => []);
  const { value, low } = similar;
  for (let i = 0; i < places.count; i++) {
    if (value[i] <= low || i === similar.query) continue;
    steps[Math.min(7, Math.floor((8 * (value[i] - low)) / (1 - low + 1e-9)))].push(i);
  }
  steps.forEach((members, k) => {
    if (!members.length) return;
    pen.beginPath();
    for (const i of members) outline(places.shapes, i, 2);
    pen.globalAlpha = 0.12 + 0.07 * k;
    pen.fillStyle = theme.accent;
    pen.fill();
    pen.globalAlpha = 1;
  });
  pen.font = "600 11px system-ui, sans-serif";
  pen.textAlign = "center";
  for (const i of similar.hits) ring(places.shapes, i, 1.5, theme.accent, 6);
  ring(places.shapes, similar.query, 2.5, theme.ink, 8);
  const taken = [];
  similar.hits.forEach((i, k) => label(places.shapes, i, String(k + 1), taken));
}

/** A number above a shape, where no earlier one is in its way. */
function label(shapes, i, text, taken) {
  const [x0, y0, x1, y1] = shapes.box.subarray(4 * i, 4 * i + 4);
  for (const turn of turns(x0, y0, x1, y1)) {
    const [x, y] = [toScreenX((x0 + x1) / 2 + turn), toScreenY(y0) - 9];
    if (taken.some(([tx, ty]) => Math.hypot(tx - x, ty - y) < 17)) continue;
    taken.push([x, y]);
    pen.beginPath();
    pen.arc(x, y, 8.5, 0, 2 * Math.PI);
    pen.fillStyle = theme.accent;
    pen.fill();
    pen.fillStyle = theme.paper;
    pen.fillText(text, x, y + 4);
  }
}
