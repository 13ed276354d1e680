// Tiles of one layer: what is read and decoded, at which size, and what is drawn of it.

import { fillOf, readMask, readTile } from "../lib/image.js";
import { levelsOf } from "../lib/tile.js";

const ROOM = 384 * 2 ** 20; // bytes of decoded samples that are kept
const SHARES = [1, 0.78, 0.45, 0.28, 0.22, 0.2]; // of a payload that each level needs, until it is known
export const DEEPEST = SHARES.length - 1;
export const SHEETS = 3; // from this level on, the tiles of a layer are one picture
const LARGEST_SHEET = 8192;

/** Decoded tiles of all layers, the least recently used of which goes first. */
export class TileCache {
  constructor() {
    this.tiles = new Map();
    this.size = 0;
  }

  get(key) {
    const tile = this.tiles.get(key);
    if (tile) {
      this.tiles.delete(key);
      this.tiles.set(key, tile);
    }
    return tile;
  }

  set(key, tile) {
    this.tiles.set(key, tile);
    this.size += tile.size;
    for (const [old, { size }] of this.tiles) {
      if (this.size <= ROOM || old === key) break;
      this.tiles.delete(old);
      this.size -= size;
    }
  }
}

/** One lattice of an opened asset, in tiles. */
export class Tiles {
  constructor(image, lattice, cache, runner, name) {
    Object.assign(this, { image, lattice, cache, runner, name, shares: SHARES.slice() });
    const [, rows, columns] = lattice.latent.chunk;
    this.tileH = rows * 8;
    this.tileW = columns * 8;
    [, this.down, this.across] = lattice.latent.grid;
    const corner = lattice.latent.extent([0, this.down - 1, this.across - 1]).shape;
    this.deepest = lattice.coded ? Math.min(DEEPEST, levelsOf(corner[1] * 8, corner[2] * 8)) : 0;
  }

  /** Pixels of the asset's grid that a tile covers: y0, x0, y1, x1. */
  box(i, j) {
    const { padding, shape } = this.lattice;
    const y = i * this.tileH - padding[0];
    const x = j * this.tileW - padding[2];
    return [Math.max(0, y), Math.max(0, x), Math.min(shape[0], y + this.tileH), Math.min(shape[1], x + this.tileW)];
  }

  key(i, j, level, bands) {
    return `${this.name}|${i}|${j}|${level}|${[...new Set(bands)].sort().join()}`;
  }

  /** Reads and decodes a tile of bands (numbers within the lattice). */
  async load(i, j, level, bands, signal) {
    const wanted = [...new Set(bands)].sort((a, b) => a - b);
    const box = this.box(i, j);
    const [tile, mask] = await Promise.all([
      readTile(this.image, this.lattice, i, j, wanted, { level, runner: this.runner, share: level > 0 ? this.shares[level] : undefined, signal }),
      readMask(this.lattice, box[0], box[1], box[2] - box[0], box[3] - box[1], signal),
    ]);
    if (tile && level > 0 && tile.share > 0) {
      // A little more than such tiles took: a second request costs more than some bytes.
      this.shares[level] = Math.min(1, Math.max(this.shares[level] * 0.997, tile.share * 1.06));
    }
    const samples = new Map(wanted.map((b, k) => [b, tile?.bands[k] ?? null]));
    const size = [...samples.values()].reduce((sum, s) => sum + (s?.data.byteLength ?? 0), 1024) * 2;
    const entry = { samples, mask, box, level, size, picture: null, style: "" };
    this.cache.set(this.key(i, j, level, bands), entry);
    return entry;
  }

  /**
   * All tiles of a coarse level as one picture, as far as they are there; null where it would be too large.
   *
   * Its pixels are `size` pixels of the grid wide and begin at the first cell.
   */
  sheet(level, bands, style) {
    const size = 2 ** level;
    const [height, width] = this.lattice.latent.shape.slice(1).map((n) => Math.ceil((n * 8) / size));
    if (height > LARGEST_SHEET || width > LARGEST_SHEET) return null;
    const name = `${level}|${bands.join()}`;
    this.sheets ??= new Map();
    for (const old of this.sheets.keys()) if (!old.endsWith(`|${bands.join()}`)) this.sheets.delete(old);
    let sheet = this.sheets.get(name);
    if (!sheet || sheet.style !== style.key) {
      sheet = { canvas: new OffscreenCanvas(width, height), size, style: style.key, drawn: new Set() };
      this.sheets.set(name, sheet);
      for (let i = 0; i < this.down; i++) for (let j = 0; j < this.across; j++) this.#draw(sheet, level, i, j, bands, style);
    }
    return sheet;
  }

  #draw(sheet, level, i, j, bands, style) {
    const entry = this.cache.get(this.key(i, j, level, bands));
    if (!entry) return false;
    const { canvas, shown: [top, left] } = this.picture(entry, i, j, bands, style);
    const { padding } = this.lattice;
    sheet.canvas.getContext("2d").drawImage(canvas, (left + padding[2]) / sheet.size, (top + padding[0]) / sheet.size);
    sheet.drawn.add(i * this.across + j);
    return true;
  }

  /** Whether a tile is on a sheet; it is put there if it has been decoded. */
  onSheet(sheet, level, i, j, bands, style) {
    return sheet.drawn.has(i * this.across + j) || this.#draw(sheet, level, i, j, bands, style);
  }

  /** The tile as a canvas, and the rectangle of the asset's pixels that it shows. */
  picture(entry, i, j, bands, style) {
    if (entry.style === style.key) return entry.picture;
    entry.style = style.key;
    const [y0, x0, y1, x1] = entry.box;
    const size = 2 ** entry.level;
    const { padding } = this.lattice;
    const [fromY, fromX] = [y0 + padding[0] - i * this.tileH, x0 + padding[2] - j * this.tileW];
    const top = Math.floor(fromY / size), left = Math.floor(fromX / size);
    const h = Math.ceil((fromY + y1 - y0) / size) - top;
    const w = Math.ceil((fromX + x1 - x0) / size) - left;
    const canvas = new OffscreenCanvas(w, h);
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(w, h);
    const out = new Uint32Array(pixels.data.buffer);
    out.fill(0xff000000);
    for (let c = 0; c < 3; c++) {
      const band = this.lattice.bands[bands[c]];
      const sample = entry.samples.get(bands[c]);
      if (!sample) {
        out.fill(0);
        break;
      }
      const table = style.tables[c];
      const shift = Math.max(0, band.array - entry.level);
      const fill = fillOf(band);
      const mask = entry.mask?.[bands[c]] ?? null;
      const exact = entry.level === 0 && band.nodata !== null && !mask;
      for (let y = 0; y < h; y++) {
        const row = Math.min(sample.height - 1, (top + y) >> shift) * sample.width;
        for (let x = 0; x < w; x++) {
          const v = sample.data[row + Math.min(sample.width - 1, (left + x) >> shift)];
          const k = y * w + x;
          if (mask) {
            const my = Math.min(y1 - y0 - 1, Math.max(0, (top + y) * size + (size >> 1) - fromY));
            const mx = Math.min(x1 - x0 - 1, Math.max(0, (left + x) * size + (size >> 1) - fromX));
            if (!mask[my * (x1 - x0) + mx]) {
              out[k] = 0;
              continue;
            }
          }
          if (exact && v === fill) out[k] = 0;
          else if (out[k] !== 0) out[k] |= table(v) << (8 * c);
        }
      }
    }
    context.putImageData(pixels, 0, 0);
    const shown = [top * size - padding[0] + i * this.tileH, left * size - padding[2] + j * this.tileW, h * size, w * size];
    entry.picture = { canvas, shown };
    return entry.picture;
  }
}
