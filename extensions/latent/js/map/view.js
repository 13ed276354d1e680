// Where one looks: Web Mercator, from 0 to 1, and hands that move it.

/** A view of the map: centre, and pixels of the screen for the whole world. */
export class View {
  constructor(canvas, changed) {
    Object.assign(this, { canvas, changed, x: 0.5, y: 0.5, scale: 256, least: 128, most: 2 ** 31 });
    this.#hands();
  }

  get width() { return this.canvas.clientWidth; }
  get height() { return this.canvas.clientHeight; }

  toScreen([x, y]) {
    return [(x - this.x) * this.scale + this.width / 2, (y - this.y) * this.scale + this.height / 2];
  }

  fit([x0, y0, x1, y1]) {
    this.x = (x0 + x1) / 2;
    this.y = (y0 + y1) / 2;
    const room = Math.min(this.width / Math.max(x1 - x0, 1e-9), this.height / Math.max(y1 - y0, 1e-9));
    this.scale = Math.min(this.most, Math.max(this.least, room * 0.94));
    this.changed();
  }

  /** Zoom, latitude and longitude, as addresses of maps have them. */
  get text() {
    const latitude = (Math.atan(Math.sinh(Math.PI * (1 - 2 * this.y))) * 180) / Math.PI;
    return [Math.log2(this.scale / 256).toFixed(2), latitude.toFixed(5), (this.x * 360 - 180).toFixed(5)].join("/");
  }

  /** Goes where such a text says; false if it says nothing. */
  goTo(text) {
    const [zoom, latitude, longitude, ...more] = text.split("/").map(Number);
    if (more.length > 0 || !(Math.abs(latitude) < 86) || !(Math.abs(longitude) <= 360) || !(zoom >= -1 && zoom <= 23)) return false;
    this.x = (longitude + 180) / 360;
    this.y = 0.5 - Math.asinh(Math.tan((latitude * Math.PI) / 180)) / (2 * Math.PI);
    this.scale = 256 * 2 ** zoom;
    this.changed();
    return true;
  }

  move(dx, dy) {
    this.x -= dx / this.scale;
    this.y -= dy / this.scale;
    this.changed();
  }

  /** Zooms so that the point of the screen stays where it is. */
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const scale = Math.min(this.most, Math.max(this.least, this.scale * factor));
    this.x += (px - this.width / 2) * (1 / this.scale - 1 / scale);
    this.y += (py - this.height / 2) * (1 / this.scale - 1 / scale);
    this.scale = scale;
    this.changed();
  }

  #hands() {
    const { canvas } = this;
    const fingers = new Map();
    const spread = () => {
      const [a, b] = [...fingers.values()];
      return [Math.hypot(a[0] - b[0], a[1] - b[1]), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    };
    canvas.addEventListener("pointerdown", (e) => {
      canvas.setPointerCapture(e.pointerId);
      fingers.set(e.pointerId, [e.offsetX, e.offsetY]);
    });
    canvas.addEventListener("pointermove", (e) => {
      const before = fingers.get(e.pointerId);
      if (!before) return;
      if (fingers.size === 2) {
        const [far, x0, y0] = spread();
        fingers.set(e.pointerId, [e.offsetX, e.offsetY]);
        const [now, x1, y1] = spread();
        this.move(x1 - x0, y1 - y0);
        this.zoom(now / Math.max(far, 1), x1, y1);
        return;
      }
      fingers.set(e.pointerId, [e.offsetX, e.offsetY]);
      if (fingers.size === 1) this.move(e.offsetX - before[0], e.offsetY - before[1]);
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (e) => fingers.delete(e.pointerId));
    canvas.addEventListener("wheel", (e) => {
      e.preventDefault();
      this.zoom(2 ** (-e.deltaY / (e.deltaMode === 1 ? 12 : 300)), e.offsetX, e.offsetY);
    }, { passive: false });
    canvas.addEventListener("dblclick", (e) => this.zoom(2, e.offsetX, e.offsetY));
    canvas.addEventListener("keydown", (e) => {
      const step = { ArrowLeft: [80, 0], ArrowRight: [-80, 0], ArrowUp: [0, 80], ArrowDown: [0, -80] }[e.key];
      if (step) this.move(...step);
      else if (e.key === "+" || e.key === "=") this.zoom(2);
      else if (e.key === "-") this.zoom(0.5);
      else return;
      e.preventDefault();
    });
  }
}

/** Place on the map of a pixel of an Item's grid: between the points that the page has of it. */
export class Placed {
  constructor({ size: [height, width], points }) {
    this.height = height;
    this.width = width;
    this.n = Math.round(Math.sqrt(points.length / 2));
    this.points = points;
    const xs = points.filter((_, i) => i % 2 === 0);
    const ys = points.filter((_, i) => i % 2 === 1);
    this.box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  }

  at(row, column) {
    const { n, points } = this;
    const u = (row / this.height) * (n - 1);
    const v = (column / this.width) * (n - 1);
    const i = Math.min(n - 2, Math.max(0, Math.floor(u)));
    const j = Math.min(n - 2, Math.max(0, Math.floor(v)));
    const mix = (k) => {
      const p = (a, b) => points[2 * (a * n + b) + k];
      const top = p(i, j) + (p(i, j + 1) - p(i, j)) * (v - j);
      const bottom = p(i + 1, j) + (p(i + 1, j + 1) - p(i + 1, j)) * (v - j);
      return top + (bottom - top) * (u - i);
    };
    return [mix(0), mix(1)];
  }
}
