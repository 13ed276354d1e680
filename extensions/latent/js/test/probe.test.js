// The probe of each codec that ships with the Python package: a payload, and the CRC-32 of what it decodes to.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { crc32 } from "../lib/bits.js";
import { parseJson } from "../lib/json.js";
import { toPixels } from "../lib/pixels.js";
import { readSafetensors } from "../lib/safetensors.js";
import { decodeTile } from "../lib/tile.js";

const folder = new URL("../../../../stac_latent/bundles/", import.meta.url);

for (const name of readdirSync(folder)) {
  const description = parseJson(readFileSync(new URL(`${name}/codec.json`, folder)), name);
  if (description.chain.at(-1).stage !== "lin") continue;
  test(`probe of ${name}`, () => {
    const tensors = readSafetensors(readFileSync(new URL(`${name}/codec.safetensors`, folder)));
    const n = description.chain.length - 1;
    const get = (key) => tensors.get(`${n}.${key}`);
    const model = {
      basis: get("basis").data, basisSize: get("basis").shape[1], weights: Int32Array.from(get("weights").data),
      counts: get("counts").data, runs: get("runs").data, signs: get("signs").data,
    };
    const { mean, unit } = description.chain[0];
    const payload = tensors.get("probe.payload").data;
    const { bands } = decodeTile(payload, model, [description.bands.map((_, i) => i)]);
    const pixels = bands.map((band, i) => toPixels(band.data, description.bands[i], mean[i], unit[i]));
    const bytes = new Uint8Array(pixels.flatMap((p) => [...new Uint8Array(p.buffer)]));
    assert.equal(crc32(bytes), description.probe.field_crc);
  });
}
