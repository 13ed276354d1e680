// The conformance kit in one process: prints a line of JSON for each case, { case, outcome, said }.
//
//     node tools/kit.mjs [KIT]
//
// The runner of the kit (conformance/run.py) does the same with one process for each case.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { decodeCase } from "../decode.mjs";
import { LatentError } from "../lib/errors.js";

const kit = process.argv[2] ?? fileURLToPath(new URL("../../conformance", import.meta.url));

function differences(arrays, file, tolerance) {
  const end = file.indexOf(10);
  const expected = JSON.parse(file.subarray(0, end).toString()).arrays;
  let at = end + 1;
  if (arrays.length !== expected.length) return `there are ${arrays.length} arrays instead of ${expected.length}`;
  for (const [k, { data, ...head }] of arrays.entries()) {
    if (JSON.stringify(head) !== JSON.stringify(expected[k])) return `${JSON.stringify(head)} instead of ${JSON.stringify(expected[k])}`;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const wanted = new data.constructor(Uint8Array.from(file.subarray(at, at + bytes.length)).buffer);
    at += bytes.length;
    const wrong = data.findIndex((v, i) => !(Object.is(v, wanted[i]) || v === wanted[i] || Math.abs(v - wanted[i]) <= tolerance * Math.abs(wanted[i])));
    if (wrong >= 0) return `${head.name}: value ${wrong} is ${data[wrong]} instead of ${wanted[wrong]}`;
  }
  return at === file.length ? "" : "values are missing";
}

for (const one of JSON.parse(readFileSync(`${kit}/manifest.json`, "utf8")).cases) {
  const row = { case: one.name, feature: one.feature, expected: one.outcome, outcome: "decoded", said: "" };
  try {
    const arrays = await decodeCase(`${kit}/${one.folder}`);
    if (one.outcome === "decoded") row.said = differences(arrays, gunzipSync(readFileSync(`${kit}/${one.expected}`)), one.tolerance ?? 0);
  } catch (error) {
    row.outcome = error instanceof LatentError ? "refused" : "crashed";
    row.said = error instanceof LatentError ? error.message : error.stack;
  }
  console.log(JSON.stringify(row));
}
