// Pictures of items: decoded when first needed, blended by the slider, drawn in the panel and on the map.

const pictures = new Map(); // item and layer -> Image

function picture(state, item, layer) {
  const key = `${item}/${layer}`;
  if (!pictures.has(key)) {
    const image = new Image();
    image.onload = () => state.redraw();
    image.src = state.data.looks[item].layers[layer][1];
    pictures.set(key, image);
  }
  const image = pictures.get(key);
  return image.complete && image.naturalWidth ? image : null;
}

/** Draw the layers of an item, blended: 0 is the first, 1 the second, 2 the third. */
function blend(state, item, at, target) {
  const { layers } = state.data.looks[item];
  const low = Math.min(layers.length - 1, Math.floor(at));
  const pair = [picture(state, item, low), low + 1 < layers.length && at > low ? picture(state, item, low + 1) : null];
  const known = layers.map((_, k) => picture(state, item, k)).filter(Boolean);
  if (!known.length) return false;
  const width = Math.max(...known.map((p) => p.naturalWidth));
  const height = Math.max(...known.map((p) => p.naturalHeight));
  if (target.width !== width) target.width = width;
  if (target.height !== height) target.height = height;
  const ctx = target.getContext("2d");
  ctx.clearRect(0, 0, width, height);
  ctx.imageSmoothingEnabled = false;
  if (pair[0]) {
    ctx.globalAlpha = 1;
    ctx.drawImage(pair[0], 0, 0, width, height);
  }
  if (pair[1]) {
    ctx.globalAlpha = at - low;
    ctx.drawImage(pair[1], 0, 0, width, height);
  }
  ctx.globalAlpha = 1;
  return true;
}

/** The layer that stands for an item on the map: decoded pixels where there are some. */
function standing(look) {
  const decoded = look.layers.findIndex(([name]) => name === "decoded");
  return Math.max(0, decoded);
}

function drawPictures(state) {
  state.shown = new Set();
  if (!$("draped").checked) return;
  const drawn = (i, image) => {
    drape(image, state.data.looks[i].corners);
    state.shown.add(i);
  };
  for (const key of Object.keys(state.data.looks)) {
    const i = Number(key);
    const [x0, y0, x1, y1] = state.shapes.box.subarray(4 * i, 4 * i + 4);
    const large = Math.max(x1 - x0, y1 - y0) * view.scale > 24;
    if (i === state.chosen || !(large || !placed(state.shapes, i)) || !turns(x0, y0, x1, y1).length) continue;
    const image = picture(state, i, standing(state.data.looks[i]));
    if (image) drawn(i, image);
  }
  if (state.chosen !== null && state.data.looks[state.chosen] && $("picture").width > 1 && state.blended) drawn(state.chosen, $("picture"));
}

/** A piece of the decoded picture around a place, for the list of similar ones; false where there is no picture. */
function crop(state, place, target) {
  const item = state.places.item[place];
  const look = item >= 0 ? state.data.looks[item] : null;
  const image = look ? picture(state, item, standing(look)) : null;
  if (!image) return Boolean(look);
  const [tl, tr, , bl] = look.corners;
  const [x0, y0, x1, y1] = state.places.shapes.box.subarray(4 * place, 4 * place + 4);
  const [dx, dy] = [mercator.lon((x0 + x1) / 2) - tl[0], mercator.lat((y0 + y1) / 2) - tl[1]];
  const [ax, ay, bx, by] = [tr[0] - tl[0], tr[1] - tl[1], bl[0] - tl[0], bl[1] - tl[1]];
  const area = ax * by - ay * bx;
  const [u, v] = [(dx * by - dy * bx) / area, (ax * dy - ay * dx) / area];
  const share = Math.abs(mercator.lon(x1) - mercator.lon(x0)) / Math.max(Math.abs(ax), Math.abs(bx));
  const side = Math.max(12, 3 * share * image.naturalWidth);
  target.width = target.height = 92;
  const ctx = target.getContext("2d");
  ctx.imageSmoothingEnabled = false;
  ctx.drawImage(image, u * image.naturalWidth - side / 2, v * image.naturalHeight - side / 2, side, side, 0, 0, 92, 92);
  return true;
}
