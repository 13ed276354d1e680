#!/usr/bin/env node
// Decodes a case of the conformance kit: node decode.mjs CASE OUT
//
// CASE is a folder with case.json. What cannot be decoded is refused with one sentence, and exit code 2.

import { readFile, writeFile } from "node:fs/promises";
import { realpathSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { LatentError } from "./lib/errors.js";
import { readLatents, readPixels } from "./lib/image.js";
import { NodeSource, addressOf } from "./lib/node.js";
import { openAsset, openEmbedding } from "./lib/open.js";
import { parseJson } from "./lib/json.js";

/** Arrays that a case asks for: name, type, shape and values of each. */
export async function decodeCase(folder) {
  const wanted = parseJson(await readFile(join(folder, "case.json")), "case.json");
  const source = new NodeSource();
  const href = addressOf(resolve(folder, wanted.item));
  const item = parseJson((await source.read(href)) ?? "", "The Item");
  const embedding = wanted.want === "latents" && item.assets?.[wanted.asset]?.["latent:kind"] === "embedding";
  const image = embedding ? await openEmbedding(source, href, wanted.asset) : await openAsset(source, href, wanted.asset, { key: wanted.key });
  if (wanted.want === "latents") {
    const { data, shape } = await readLatents(image);
    return [{ name: "latent", data_type: "float32", shape, data }];
  }
  return (await readPixels(image)).map((p) => ({ name: p.name, data_type: p.dataType, shape: [p.height, p.width], data: p.data }));
}

async function main([folder, out]) {
  if (!folder || !out) throw new LatentError("Two arguments are needed: the folder of a case, and the file to write.");
  const arrays = await decodeCase(folder);
  const head = JSON.stringify({ arrays: arrays.map(({ data, ...rest }) => rest) });
  const bytes = arrays.map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  await writeFile(out, Buffer.concat([Buffer.from(`${head}\n`), ...bytes]));
}

const asked = process.argv[1] && pathToFileURL(realpathSync(process.argv[1])).href === import.meta.url;
if (asked) main(process.argv.slice(2)).catch((error) => {
  if (error instanceof LatentError || error.code === "ENOENT") {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 2;
  } else {
    throw error;
  }
});
