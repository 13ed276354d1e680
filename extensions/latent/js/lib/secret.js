// `aes-256-gcm-1`: stores whose files are encrypted one by one (spec/encryption.md). Needs the Web Crypto of Node, or of a page that came over TLS.

import { LatentError, must } from "./errors.js";
import { parseJson } from "./json.js";
import { sha256 } from "./sha256.js";
import { below, cut } from "./source.js";

const SCHEME = "aes-256-gcm-1";
const utf8 = (text) => new TextEncoder().encode(text);
const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

class Float {
  constructor(value) { this.value = value; }

  /** As canonical JSON writes it: the shortest that reads back the same, with a point or an exponent of two digits. */
  toString() {
    const { value } = this;
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
      const [digits, exponent] = value.toExponential().split("e");
      return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
    }
    const text = String(value);
    return text.includes(".") ? text : `${text}.0`;
  }
}

const float = (v) => new Float(v);
const floats = (list) => list.map(float);

function canonical(value) {
  if (value instanceof Float) return value.toString();
  if (Array.isArray(value)) return `[${value.map(canonical).join(", ")}]`;
  if (value !== null && typeof value === "object") {
    const names = Object.keys(value).filter((name) => value[name] !== undefined).sort();
    return `{${names.map((name) => `${canonical(name)}: ${canonical(value[name])}`).join(", ")}}`;
  }
  const text = JSON.stringify(value);
  return typeof value === "string" ? text.replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`) : text;
}

function bandContext(band) {
  const out = { name: band.name, data_type: band.data_type, unit: band.unit ?? undefined, "eo:common_name": band["eo:common_name"] ?? undefined };
  if ((band.nodata ?? null) !== null) out.nodata = typeof band.nodata === "number" ? float(band.nodata) : band.nodata;
  for (const name of ["gsd", "eo:center_wavelength", "eo:full_width_half_max"]) if ((band[name] ?? null) !== null) out[name] = float(band[name]);
  if ((band["raster:scale"] ?? 1) !== 1) out["raster:scale"] = float(band["raster:scale"]);
  if ((band["raster:offset"] ?? 0) !== 0) out["raster:offset"] = float(band["raster:offset"]);
  return out;
}

/** The text that a data key is bound to. */
export function context(asset, item) {
  const codec = asset["latent:kind"] === "codec";
  const same = ["latent:kind", "latent:space", "latent:granularity", "latent:dtype", "latent:quantization", "data_type", "latent:dimensions", "proj:shape"];
  const optional = ["latent:halo", "latent:bitstream", "latent:residual", "latent:scale_asset"];
  const out = Object.fromEntries([...same, ...optional].map((name) => [name, asset[name] ?? undefined]));
  out["latent:stride"] = codec ? asset["latent:stride"] : [1, 1];
  out["latent:padding"] = codec ? asset["latent:padding"] : [0, 0, 0, 0];
  if (codec) out["latent:determinism"] = asset["latent:determinism"];
  if (!["none", "round"].includes(asset["latent:quantization"])) {
    out["latent:quantization_scale"] = asset["latent:quantization_scale"] ? floats(asset["latent:quantization_scale"]) : undefined;
    out["latent:quantization_offset"] = floats(asset["latent:quantization_offset"] ?? [0]);
  }
  if (asset["latent:quantization"] === "power") out["latent:quantization_power"] = float(asset["latent:quantization_power"]);
  out.bands = asset.bands.map(bandContext);
  const wkt = asset["proj:wkt2"] ?? (asset["proj:code"] === undefined ? item.properties?.["proj:wkt2"] : undefined);
  out["proj:code"] = wkt ? null : asset["proj:code"] ?? item.properties?.["proj:code"] ?? null;
  if (wkt) out["proj:wkt2"] = wkt;
  out["proj:transform"] = floats(asset["proj:transform"].slice(0, 6));
  const placed = (band) => ["proj:shape", "proj:transform", "latent:group"].some((name) => (band[name] ?? null) !== null);
  if (asset.bands.some(placed)) {
    out.places = asset.bands.map((band) => (placed(band) ? {
      dimensions: band["latent:dimensions"] ?? null, group: band["latent:group"] ?? "",
      shape: band["proj:shape"] ?? asset["proj:shape"], transform: floats((band["proj:transform"] ?? asset["proj:transform"]).slice(0, 6)),
    } : null));
  }
  return canonical(out);
}

/** A source that decrypts what lies in one store. */
class SecretSource {
  constructor(source, store, groups, key) {
    Object.assign(this, { source, store, groups, key });
    this.manifests = new Map();
  }

  #split(href) {
    const path = decodeURI(new URL(href).pathname.slice(new URL(this.store).pathname.replace(/\/$/, "").length + 1));
    const group = this.groups.find((name) => path.startsWith(`${name}/`)) ?? "";
    return [group, group ? path.slice(group.length + 1) : path];
  }

  async #open(bytes, group, place) {
    must(bytes.length >= 28, `The encrypted file ${place} is cut short.`);
    const additionalData = utf8(`${SCHEME}|${group}/${place}`);
    try {
      return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv: bytes.subarray(0, 12), additionalData }, this.key, bytes.subarray(12)));
    } catch {
      throw new LatentError(`The encrypted file ${place} is damaged, or lies in another place than it was written for.`);
    }
  }

  #manifest(group) {
    if (!this.manifests.has(group)) this.manifests.set(group, this.#readManifest(group));
    return this.manifests.get(group);
  }

  async #readManifest(group) {
    const bytes = await this.source.read(below(this.store, group ? `${group}/manifest` : "manifest"));
    must(bytes, "The encrypted store has no manifest: it is incomplete.");
    const { chunks, metadata } = parseJson(await this.#open(bytes, group, "manifest"), "The manifest");
    return { chunks: new Set(chunks), metadata };
  }

  async read(href, range = null, signal = undefined) {
    const [group, place] = this.#split(href);
    const { chunks, metadata } = await this.#manifest(group);
    const isMetadata = place === "zarr.json" || place.endsWith("/zarr.json");
    if (!isMetadata && !chunks.has(place)) return null;
    const bytes = await this.source.read(href, null, signal);
    if (isMetadata) {
      if (!bytes) return null;
      must(metadata[place] === sha256(bytes), `${place} of the encrypted store is not what its manifest says: it was changed.`);
      return bytes;
    }
    must(bytes, `The encrypted store lacks ${place}, which its manifest lists: it is incomplete.`);
    const plain = await this.#open(bytes, group, place);
    return range ? cut(plain, range) : plain;
  }
}

/**
 * The source of an encrypted asset's store.
 *
 * @param {Uint8Array | string | undefined} key the user's key, as bytes or in Base64
 */
export async function openSecret(source, store, asset, item, key) {
  const scheme = asset["latent:encryption"];
  must(scheme === SCHEME, `The asset is encrypted with ${scheme}; this decoder knows ${SCHEME}. A newer decoder is needed.`);
  must(key, `The asset is encrypted; the key ${asset["latent:key_id"]} is needed.`);
  must(globalThis.crypto?.subtle, "The asset is encrypted; decrypting needs a page that came over TLS, or Node.");
  const bytes = typeof key === "string" ? fromBase64(key) : key;
  must(bytes.length === 32, `The key has ${bytes.length} bytes; 32 were expected.`);
  const wrapped = fromBase64(asset["latent:wrapped_key"] ?? "");
  must(wrapped.length === 80, "The asset's latent:wrapped_key is damaged.");
  const { subtle } = crypto;
  const material = await subtle.importKey("raw", bytes, "HKDF", false, ["deriveKey"]);
  const wrapping = await subtle.deriveKey(
    { name: "HKDF", hash: "SHA-256", salt: wrapped.subarray(0, 32), info: utf8("stac-latent wrap 1") },
    material, { name: "AES-GCM", length: 256 }, false, ["decrypt"],
  );
  let data;
  try {
    data = await subtle.decrypt({ name: "AES-GCM", iv: new Uint8Array(12), additionalData: utf8(context(asset, item)) }, wrapping, wrapped.subarray(32));
  } catch {
    throw new LatentError(`The key does not open the asset: it is another than ${asset["latent:key_id"]}, or fields of the asset were changed.`);
  }
  const groups = [...new Set(asset.bands.map((band) => band["latent:group"]).filter(Boolean))];
  return new SecretSource(source, store, groups, await subtle.importKey("raw", data, "AES-GCM", false, ["decrypt"]));
}
