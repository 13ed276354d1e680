// Which part of the world is on the screen, and how it is moved.

const view = { x: 0.5, y: 0.5, scale: 512, width: 1, height: 1 };
const MOST_ZOOM = 2 ** 33;

const toScreenX = (x) => (x - view.x) * view.scale + view.width / 2;
const toScreenY = (y) => (y - view.y) * view.scale + view.height / 2;
const toWorld = (px, py) => [(px - view.width / 2) / view.scale + view.x, (py - view.height / 2) / view.scale + view.y];

function settle() {
  view.scale = Math.max(Math.min(view.width, view.height, 256), Math.min(MOST_ZOOM, view.scale));
  view.x -= Math.floor(view.x);
  view.y = Math.max(0, Math.min(1, view.y));
}

function move(dx, dy) {
  view.x -= dx / view.scale;
  view.y -= dy / view.scale;
  settle();
}

function zoomAt(factor, px = view.width / 2, py = view.height / 2) {
  const [x, y] = toWorld(px, py);
  view.scale *= factor;
  settle();
  view.x = x - (px - view.width / 2) / view.scale;
  view.y = y - (py - view.height / 2) / view.scale;
  settle();
}

/** Show a box of the world, with a margin; a small one is not shown larger than `most` pixels of the world. */
function fit([x0, y0, x1, y1], share = 0.8, most = 2 ** 24) {
  view.x = (x0 + x1) / 2;
  view.y = (y0 + y1) / 2;
  view.scale = Math.min(most, (share * view.width) / Math.max(x1 - x0, 1e-12), (share * view.height) / Math.max(y1 - y0, 1e-12));
  settle();
}

/** Box around all shapes; the shorter way where they lie on both sides of the antimeridian. */
function extent(shapes) {
  const spans = [];
  let [y0, y1] = [Infinity, -Infinity];
  for (let i = 0; i < shapes.count; i++) {
    if (!placed(shapes, i)) continue;
    spans.push([shapes.box[4 * i], shapes.box[4 * i + 2]]);
    y0 = Math.min(y0, shapes.box[4 * i + 1]);
    y1 = Math.max(y1, shapes.box[4 * i + 3]);
  }
  if (!spans.length) return [0, 0, 1, 1];
  spans.sort((a, b) => a[0] - b[0]);
  let [reach, gap, from] = [spans[0][1], 0, null];
  for (const [x0, x1] of spans) {
    if (x0 - reach > gap) [gap, from] = [x0 - reach, x0];
    reach = Math.max(reach, x1);
  }
  const outer = spans[0][0] + 1 - reach;
  if (from === null || outer >= gap) return [spans[0][0], y0, reach, y1];
  return [from, y0, from + 1 - gap, y1];
}

/** Whole turns of the world by which a box is on the screen: [] where it is not. */
function turns(x0, y0, x1, y1) {
  if (toScreenY(y1) < 0 || toScreenY(y0) > view.height) return [];
  const half = view.width / 2 / view.scale;
  const [first, last] = [Math.ceil(view.x - half - x1), Math.floor(view.x + half - x0)];
  if (first === last) return [first];
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
}
