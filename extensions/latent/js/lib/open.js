// From a STAC Item to all that decoding needs: checks of what is required, codec, store, grids.

import { openCodec } from "./codec.js";
import { LatentError, must } from "./errors.js";
import { parseJson } from "./json.js";
import { openSecret } from "./secret.js";
import { sha256 } from "./sha256.js";
import { resolve } from "./source.js";
import { Chip, openGroup } from "./zarr.js";

/** Features that this decoder has, of `latent:required_features`. */
export const FEATURES = new Set(["difference", "residual", "sparse_fallback", "chips", "encryption"]);
const MEMBERS = new Set(["space", "bitstream", "part", "reference"]);
const RESIDUAL = "stac-latent-residual-1";
const BITSTREAMS = new Set(["stac-latent-lin-1", "stac-latent-rans-1"]);
const SCHEMA = /^https:\/\/stac-latent\.github\.io\/latent\/v([^/]+)\/schema\.json$/;
const VERSION = "0.1.0";

async function readJson(source, href, what) {
  const bytes = await source.read(href);
  must(bytes, `${what} is not there: ${href.split("?")[0]}.`);
  return { bytes, json: parseJson(bytes, `${what} (${href.split("?")[0]})`) };
}

function verify(bytes, checksum, what) {
  if (checksum === undefined || checksum === null) return;
  must(/^1220[0-9a-f]{64}$/.test(checksum), `${what} has the checksum ${checksum}; a sha2-256 multihash was expected.`);
  must(sha256(bytes) === checksum.slice(4), `${what} is not what the link to it says: its checksum differs. Read it from where it was published, or write the link anew.`);
}

/** Refuses what this decoder would misunderstand. */
export function checkRequirements(asset, key, ignore = []) {
  const known = (name) => FEATURES.has(name) || ignore.includes(name);
  const required = asset["latent:required_features"] ?? [];
  for (const name of required) {
    must(known(name), `Asset ${key} needs the feature ${name}, which this decoder does not have: it would return something else than pixels.`);
  }
  const fields = { "latent:reference_item": "difference", "latent:residual": "residual", "latent:encryption": "encryption", "latent:chip_index": "chips" };
  for (const [field, feature] of Object.entries(fields)) {
    if (asset[field] === undefined || asset[field] === null) continue;
    must(known(feature), `Asset ${key} has ${field}; this decoder does not have the feature ${feature}.`);
  }
  const { "latent:bitstream": bitstream = null } = asset;
  must(bitstream === null || BITSTREAMS.has(bitstream), `Asset ${key} has payloads of ${bitstream}; this decoder reads ${[...BITSTREAMS].join(", ")}. A newer or another decoder is needed.`);
}

const codecs = new WeakMap();

/** The codec of a space, by the Item's link; read once for a source. */
async function codecOf(source, item, href, space) {
  const link = (item.links ?? []).find((l) => l.rel === "latent:decoder" && l["latent:space"] === space);
  must(link, `The Item ${item.id} has no latent:decoder link for the space ${space}.`);
  const place = resolve(href, link.href);
  if (!codecs.has(source)) codecs.set(source, new Map());
  const known = codecs.get(source);
  const name = `${place} ${link["file:checksum"]}`;
  if (!known.has(name)) {
    const reading = readCodec(source, place, link["file:checksum"], space);
    reading.catch(() => known.delete(name));
    known.set(name, reading);
  }
  return known.get(name);
}

async function readCodec(source, place, checksum, space) {
  const { bytes, json: model } = await readJson(source, place, "The codec's Item");
  verify(bytes, checksum, "The codec's Item");
  const assets = Object.values(model.assets ?? {});
  const one = async (test, what) => {
    const asset = assets.find(test);
    must(asset, `The codec's Item has no asset with ${what}.`);
    const href = resolve(place, asset.href);
    const content = await source.read(href);
    must(content, `${what} of the codec is not there: ${href.split("?")[0]}.`);
    verify(content, asset["file:checksum"], `${what} of the codec`);
    return content;
  };
  const [description, tensors] = await Promise.all([
    one((a) => a["mlm:artifact_type"] === "stac-latent.bundle" || a.href.endsWith("codec.json"), "The description"),
    one((a) => a.href.split("?")[0].endsWith(".safetensors"), "The file of tensors"),
  ]);
  const codec = openCodec(description, tensors);
  must(codec.space === space, `The codec is of the space ${codec.space}; the asset says ${space}.`);
  return codec;
}

const near = (value, what) => {
  const whole = Math.round(value);
  must(Math.abs(value - whole) < 1e-4, `${what} does not lie on whole pixels.`);
  return whole;
};

/** Pixels (y, x) of one grid's corner, counted in pixels of another from its corner. */
const offset = (from, to, what) => [near((to[5] - from[5]) / from[4], what), near((to[2] - from[2]) / from[0], what)];

/** Lattices of an asset: which bands, in which arrays, on which cells. */
function latticesOf(asset, codec) {
  const stride = asset["latent:stride"];
  must(codec.rans || (stride?.[0] === 8 && stride?.[1] === 8), `The asset has a stride of ${stride}; 8, 8 was expected of its codec.`);
  const bands = asset.bands.map((band, i) => ({
    index: i, name: band.name, data_type: band.data_type ?? codec.bands[i]?.data_type, nodata: band.nodata ?? codec.bands[i]?.nodata ?? null,
    shape: band["proj:shape"] ?? asset["proj:shape"], transform: band["proj:transform"] ?? asset["proj:transform"],
    group: band["latent:group"] ?? null, scale: band["raster:scale"] ?? 1, commonName: band["eo:common_name"] ?? null,
  }));
  must(bands.length === codec.bands.length, `The asset has ${bands.length} bands, its codec ${codec.bands.length}.`);
  for (const [i, band] of bands.entries()) must(band.name === codec.bands[i].name, `Band ${i} of the asset is ${band.name}, of its codec ${codec.bands[i].name}.`);
  const described = codec.pyramid?.lattices ?? [[bands.length]];
  const lattices = [];
  let next = 0;
  for (const counts of described) {
    const first = next;
    const arrays = counts.map((n) => Array.from({ length: n }, () => next++ - first));
    const own = bands.slice(first, next);
    must(own.length > 0 && own.every((b) => b.group === own[0].group), "Bands of one lattice lie in several groups.");
    const lattice = { group: own[0].group, arrays, bands: own, first };
    if (lattice.group === null) {
      Object.assign(lattice, { transform: asset["proj:transform"], shape: asset["proj:shape"], padding: asset["latent:padding"] });
    } else {
      Object.assign(lattice, gridOfGroup(own));
    }
    for (const [d, array] of arrays.entries()) {
      for (const b of array) {
        const band = own[b];
        band.lattice = lattices.length;
        band.array = d;
        band.local = b;
        const size = 2 ** d;
        const same = (x, y) => Math.abs(x - y) <= 1e-9 * Math.abs(y);
        must(same(band.transform[0], lattice.transform[0] * size) && same(band.transform[4], lattice.transform[4] * size), `Pixels of band ${band.name} are not ${size} times those of its lattice.`);
        const cells = [...lattice.transform];
        cells[2] -= lattice.padding[2] * cells[0];
        cells[5] -= lattice.padding[0] * cells[4];
        const scaled = [cells[0] * size, 0, cells[2], 0, cells[4] * size, cells[5]];
        band.offset = offset(scaled, band.transform, `Band ${band.name}`); // own pixels from the first cell's corner
      }
    }
    lattices.push(lattice);
  }
  return { bands, lattices };
}

/** Grid that covers the bands of a group, with the padding that leads to cells at multiples of the stride. */
function gridOfGroup(bands) {
  const pixel = Math.min(...bands.map((b) => Math.abs(b.transform[0])));
  const finest = bands.find((b) => Math.abs(b.transform[0]) === pixel).transform;
  const [a, e] = [finest[0], finest[4]];
  const ends = bands.map((b) => [b.transform[5] + b.shape[0] * b.transform[4], b.transform[2] + b.shape[1] * b.transform[0]]);
  const pick = (values, step) => (step > 0 ? Math.min(...values) : Math.max(...values));
  const c = pick(bands.map((b) => b.transform[2]), a);
  const f = pick(bands.map((b) => b.transform[5]), e);
  const height = near((pick(ends.map((x) => x[0]), -e) - f) / e, "A group");
  const width = near((pick(ends.map((x) => x[1]), -a) - c) / a, "A group");
  // Where pixels do not begin at a multiple of their size, the nearest one counts.
  const before = (corner, step) => ((Math.round(corner / step) % 8) + 8) % 8;
  const [top, left] = [before(f, e), before(c, a)];
  const after = (n) => (8 - (n % 8)) % 8;
  return { transform: [a, 0, c, 0, e, f], shape: [height, width], padding: [top, after(top + height), left, after(left + width)] };
}

/**
 * Opens one asset of an Item that is at `href`.
 *
 * @param {object} options `ignore`: features that the caller can do without, such as `residual` where no bound is promised;
 *   `key`: of an encrypted asset, 32 bytes or these in Base64
 */
export async function openAsset(source, href, key, options = {}) {
  const { json } = await readJson(source, href, "The Item");
  return openAssetOf(source, json, href, key, options);
}

/** As `openAsset`, of an Item that is read already. */
export async function openAssetOf(source, item, href, key, options = {}) {
  const ignore = options.ignore ?? [];
  for (const uri of item.stac_extensions ?? []) {
    const version = SCHEMA.exec(uri)?.[1];
    must(version === undefined || version === VERSION, `The Item is of version ${version} of the latent extension; this decoder reads ${VERSION}. A newer decoder is needed.`);
  }
  const asset = item.assets?.[key];
  must(asset, `The Item ${item.id} has no asset ${key}; it has ${Object.keys(item.assets ?? {}).join(", ")}.`);
  must(asset["latent:kind"] === "codec", `Asset ${key} is of kind ${asset["latent:kind"]}; pixels come of codec alone.`);
  checkRequirements(asset, key, ignore);
  const space = asset["latent:space"];
  const place = resolve(href, asset.href);
  const secret = (asset["latent:encryption"] ?? null) === null ? source : await openSecret(source, place, asset, item, options.key);
  const [codec, group] = await Promise.all([codecOf(source, item, href, space), openGroup(secret, place)]);
  must(codec.model || codec.rans, `The codec's chain (${codec.chain.map((s) => s.stage).join(", ")}) is none that this decoder knows.`);
  const own = group.attributes.latent?.required_features ?? [];
  for (const name of own) must(FEATURES.has(name) || ignore.includes(name), `The store of asset ${key} needs the feature ${name}, which this decoder does not have.`);
  must(asset["latent:padding"]?.length === 4 && asset["proj:transform"] && asset["proj:shape"], `Asset ${key} lacks latent:padding, proj:shape or proj:transform.`);
  const { bands, lattices } = latticesOf(asset, codec);
  const chip = asset["latent:chip_index"] ?? null;
  const reference = await referenceFor(source, item, href, key, asset, options);
  for (const lattice of lattices) {
    const node = lattice.group === null ? group : await group.group(lattice.group);
    const array = async (name) => (chip === null ? node.array(name) : new Chip(await node.array(name), chip));
    lattice.latent = await array(reference ? "difference" : "latent");
    must(lattice.latent.shape.length === 3, `The store has ${lattice.latent.shape.length} axes; channel, y and x were expected.`);
    lattice.mask = node.has("mask") === false ? null : await array("mask");
    lattice.prefix = node.has("prefix") === true && chip === null ? await node.array("prefix") : null;
    lattice.residual = await residualOf(asset, array, ignore);
    must(node.has("residual") !== true || asset["latent:residual"], "The store has residuals of which the asset says nothing.");
    lattice.reference = reference && {
      id: reference.item.id, lattice: reference.lattices[lattices.indexOf(lattice)],
      gains: await node.array("reference_gain"), checksums: await node.array("reference_crc"),
    };
    const [channels, rows, columns] = lattice.latent.shape;
    const expected = codec.rans ? asset["latent:dimensions"] : lattice.arrays.reduce((sum, a, d) => sum + a.length * (64 >> (2 * d)), 0);
    must(channels === expected, `The store has ${channels} channels; ${expected} were expected of its bands.`);
    const { shape, padding } = lattice;
    const [high, wide] = asset["latent:stride"];
    must(rows * high === shape[0] + padding[0] + padding[1] && columns * wide === shape[1] + padding[2] + padding[3], `The store has ${rows} x ${columns} cells, which the grid and padding of the asset do not have.`);
    must(lattice.latent.chunk[0] === channels, "A chunk of the store does not hold all channels.");
    const model = codec.model;
    lattice.model = lattices.length === 1 ? model : { ...model, ...partOfBasis(model, lattice.first, lattice.bands.length) };
    const bits = asset["latent:mask_chunks"];
    lattice.maskChunks = lattice.group === null && typeof bits === "string" ? bits : null;
    const serializer = lattice.latent.codecs[0].name;
    lattice.coded = serializer !== "bytes";
    if (lattice.coded) {
      const { configuration } = lattice.latent.codecs[0];
      must(serializer === "stac_latent", `The store needs the codec ${serializer}, which this decoder does not know.`);
      for (const name of Object.keys(configuration ?? {})) {
        must(MEMBERS.has(name), `The store's codec has the member ${name}, which this decoder does not know. A newer decoder is needed.`);
      }
      must((configuration?.reference !== undefined) === (reference !== null), "The store and the asset do not agree on whether there is a key frame.");
      must(codec.rans ? configuration?.bitstream === "stac-latent-rans-1" : configuration?.bitstream !== "stac-latent-rans-1", `The store has payloads of ${configuration?.bitstream}, which the codec's chain does not decode.`);
      must(configuration?.space === space, `The store is of the space ${configuration?.space}; the asset says ${space}.`);
      must(BITSTREAMS.has(configuration.bitstream), `The store has payloads of ${configuration.bitstream}; this decoder reads ${[...BITSTREAMS].join(", ")}. A newer or another decoder is needed.`);
    }
  }
  return { source, item, href, key, asset, codec, group, bands, lattices };
}

/** The residuals of an asset: their array, and whether only some chunks have one; null if there are none, or they are not wanted. */
async function residualOf(asset, array, ignore) {
  const name = asset["latent:residual"] ?? null;
  if (name === null || ignore.includes("residual")) return null;
  const sparse = name === `${RESIDUAL}-sparse`;
  must(sparse || name === RESIDUAL, `The asset has residuals of ${name}; this decoder reads ${RESIDUAL}. A newer decoder is needed.`);
  return { array: await array("residual"), sparse };
}

/** The opened key frame that an asset was coded against; null if it stands alone. */
async function referenceFor(source, item, href, key, asset, options) {
  if ((asset["latent:reference_item"] ?? null) === null) return null;
  const link = (item.links ?? []).find((l) => l.rel === "latent:reference" && l["latent:asset"] === key);
  must(link, `The Item ${item.id} has no latent:reference link for asset ${key}, which was coded against a key frame.`);
  must(!options.isReference, `The key frame ${item.id} needs a key frame itself: that cannot be.`);
  const reference = await openAsset(source, resolve(href, link.href), key, { ...options, ignore: ["residual", "sparse_fallback"], isReference: true });
  for (const name of ["latent:space", "proj:transform", "proj:shape", "latent:stride", "latent:padding"]) {
    must(JSON.stringify(reference.asset[name]) === JSON.stringify(asset[name]), `The key frame ${reference.item.id} has another ${name} than the date.`);
  }
  return reference;
}

/** Opens an embedding: its latents alone, which no codec decodes. */
export async function openEmbedding(source, href, key) {
  const { json: item } = await readJson(source, href, "The Item");
  const asset = item.assets?.[key];
  must(asset, `The Item ${item.id} has no asset ${key}; it has ${Object.keys(item.assets ?? {}).join(", ")}.`);
  checkRequirements(asset, key);
  const group = await openGroup(source, resolve(href, asset.href));
  const latent = await group.array(asset["latent:array"] ?? "latent");
  const valid = group.has("valid") === false ? null : await group.array("valid");
  return { source, item, href, key, asset, group, lattices: [{ latent, valid, mask: null, coded: false, reference: null }] };
}

/** Rows and columns of the bases that are a lattice's. */
function partOfBasis(model, first, count) {
  const size = model.basisSize;
  const basis = new Float32Array(7 * count * count);
  for (let l = 0; l < 7; l++) for (let i = 0; i < count; i++) for (let j = 0; j < count; j++) {
    basis[(l * count + i) * count + j] = model.basis[(l * size + first + i) * size + first + j];
  }
  return { basis, basisSize: count };
}
