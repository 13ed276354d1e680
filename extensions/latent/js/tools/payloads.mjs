// Decodes the fields of a list of cases and prints the digest of the pixels of each: what tests of other languages compare with.
//
//     node tools/payloads.mjs CASES.json
//
// A case has `codec` (folder with codec.json and codec.safetensors), `payload` (a file) and, for several grids, `arrays`.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { openCodec } from "../lib/codec.js";
import { LatentError } from "../lib/errors.js";
import { decodeField } from "../lib/parts.js";
import { toPixels } from "../lib/pixels.js";

const results = JSON.parse(readFileSync(process.argv[2], "utf8")).map((one) => {
  try {
    const codec = openCodec(readFileSync(`${one.codec}/codec.json`), readFileSync(`${one.codec}/codec.safetensors`));
    const arrays = one.arrays ?? [codec.bands.map((_, i) => i)];
    const { bands } = decodeField(new Uint8Array(readFileSync(one.payload)), codec.model, arrays);
    const hash = createHash("sha256");
    for (const [i, band] of bands.entries()) {
      const pixels = toPixels(band.data, codec.bands[i], codec.mean[i], codec.unit[i]);
      hash.update(new Uint8Array(pixels.buffer));
    }
    return { sha256: hash.digest("hex") };
  } catch (error) {
    if (!(error instanceof LatentError)) throw error;
    return { error: error.message };
  }
});
process.stdout.write(JSON.stringify(results));
