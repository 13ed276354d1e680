// Items of the conformance kit, read whole, in windows, by HTTP, and damaged on their way.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { LatentError } from "../lib/errors.js";
import { readPixels } from "../lib/image.js";
import { NodeSource } from "../lib/node.js";
import { openAsset } from "../lib/open.js";
import { HttpSource } from "../lib/source.js";
import { decompressZstd } from "../lib/zstd.js";

const kit = new URL("../../conformance/", import.meta.url);
const item = (name) => new URL(`cases/${name}/${name}.json`, kit).href;

/** A source whose answers are changed. */
class Changed extends NodeSource {
  constructor(change) {
    super();
    this.change = change;
  }

  async read(href, range = null) {
    const bytes = await super.read(href, range);
    return bytes && this.change(href, Uint8Array.from(bytes), range);
  }
}

const json = (bytes, edit) => {
  const document = JSON.parse(new TextDecoder().decode(bytes));
  edit(document);
  return new TextEncoder().encode(JSON.stringify(document));
};

async function refusal(change, name = "fitted") {
  try {
    await readPixels(await openAsset(new Changed(change), item(name), "latent"));
  } catch (error) {
    assert.ok(error instanceof LatentError, error.stack);
    return error.message;
  }
  return "was decoded";
}

const asset = (edit) => (href, bytes) => (href.endsWith("/fitted.json") ? json(bytes, (d) => edit(d.assets.latent, d)) : bytes);

test("what would be misunderstood is refused with a sentence", async () => {
  assert.match(await refusal((href, bytes, range) => {
    if (range?.offset !== undefined) bytes[60] ^= 1;
    return bytes;
  }), /damaged: its CRC-32C differs/);
  assert.match(await refusal((href, bytes, range) => {
    if (range?.suffix) bytes[3] ^= 1;
    return bytes;
  }), /index of a shard.*CRC-32C differs/);
  assert.match(await refusal((href, bytes) => {
    if (href.endsWith(".safetensors")) bytes[900] ^= 1;
    return bytes;
  }), /file of tensors.*checksum differs/);
  assert.match(await refusal((href, bytes) => (href.includes("/c/0") ? bytes.subarray(0, bytes.length - 9) : bytes)), /cut short|damaged/);
  assert.match(await refusal(asset((a) => { a["latent:required_features"] = ["colour"]; })), /needs the feature colour/);
  assert.match(await refusal(asset((a) => { a["latent:bitstream"] = "stac-latent-lin-2"; })), /stac-latent-lin-2.*newer/);
  assert.match(await refusal(asset((a, d) => { d.stac_extensions = ["https://stac-latent.github.io/latent/v0.2.0/schema.json"]; })), /version 0.2.0.*newer/);
  assert.match(await refusal(asset((a) => { a["latent:space"] = `sha256:${"0".repeat(64)}`; })), /no latent:decoder link/);
  assert.match(await refusal(asset((a) => { a["latent:kind"] = "embedding"; })), /kind embedding/);
  assert.match(await refusal((href, bytes) => (href.endsWith("zarr.json") ? json(bytes, (d) => { d.zarr_format = 4; }) : bytes)), /Zarr format 4/);
  assert.match(await refusal((href, bytes) => (href.endsWith("/fitted.json") ? bytes.subarray(0, 99) : bytes)), /is no JSON/);
});

test("a window is a part of the whole, of native grids too", async () => {
  for (const [name, window] of [["nodata-wedge", { y: 11, x: 30, height: 33, width: 25 }], ["native-odd", { y: 20, x: 12, height: 40, width: 28 }]]) {
    const image = await openAsset(new NodeSource(), item(name), "latent");
    const whole = await readPixels(image);
    const parts = await readPixels(image, { window });
    for (const [b, part] of parts.entries()) {
      assert.ok(part.height > 0 && part.width > 0);
      for (let y = 0; y < part.height; y++) {
        const from = (part.y + y) * whole[b].width + part.x;
        assert.deepEqual(part.data.slice(y * part.width, (y + 1) * part.width), whole[b].data.slice(from, from + part.width));
      }
    }
    const [one] = await readPixels(image, { bands: [1], window });
    assert.deepEqual(one.data, parts[1].data);
  }
});

function serve(ranges) {
  const asked = [];
  const server = createServer((request, response) => {
    let bytes;
    try {
      bytes = readFileSync(fileURLToPath(new URL(`.${request.url}`, kit)));
    } catch {
      response.writeHead(404).end();
      return;
    }
    asked.push(`${request.url} ${request.headers.range ?? ""}`);
    const range = ranges && /bytes=(\d*)-(\d*)/.exec(request.headers.range ?? "");
    if (!range) {
      response.writeHead(200).end(bytes);
      return;
    }
    const from = range[1] === "" ? bytes.length - Number(range[2]) : Number(range[1]);
    response.writeHead(206).end(bytes.subarray(from, range[1] === "" ? bytes.length : Number(range[2]) + 1));
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done({ server, asked, base: `http://127.0.0.1:${server.address().port}` })));
}

test("by HTTP, from servers that know ranges and from those that do not", async () => {
  const local = await readPixels(await openAsset(new NodeSource(), item("nodata-wedge"), "latent"));
  for (const ranges of [true, false]) {
    const { server, asked, base } = await serve(ranges);
    try {
      const source = new HttpSource();
      const pixels = await readPixels(await openAsset(source, `${base}/cases/nodata-wedge/nodata-wedge.json`, "latent"));
      assert.deepEqual(pixels.map((p) => p.data), local.map((p) => p.data));
      assert.equal(source.requests, asked.length);
      assert.ok(asked.some((line) => / bytes=-\d+$/.test(line)));
    } finally {
      server.close();
      server.closeAllConnections();
    }
  }
});

test("zstd frames: raw, repeated and compressed blocks", () => {
  const frames = [
    ["KLUv/SABCQAAYQ==", "a"],
    ["KLUv/WAsAE0AABAAAAEAJyrAAg==", "\0".repeat(300)],
    ["KLUv/WAwAMUBAJQCdmFsaWQgcGl4ZWxzLCA7YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoEAPa0J/qTMnCwwU0l", "valid pixels, valid pixels; ".repeat(9) + "abcdefghijklmnopqrstuvwxyz".repeat(2)],
  ];
  for (const [frame, text] of frames) {
    assert.equal(new TextDecoder().decode(decompressZstd(new Uint8Array(Buffer.from(frame, "base64")), 1000)), text);
  }
  assert.throws(() => decompressZstd(new Uint8Array(Buffer.from("KLUv/WAsAE0AABAAAAEAJyrAAg==", "base64")), 100), /larger than it may be/);
  assert.throws(() => decompressZstd(new Uint8Array(9), 100), /no zstd frame/);
});
