// What others import. Files are read with lib/node.js, which browsers do not have.

export { openCodec } from "./lib/codec.js";
export { LatentError } from "./lib/errors.js";
export { readLatents, readPixels, readTile } from "./lib/image.js";
export { openAsset, openAssetOf } from "./lib/open.js";
export { decodeCoefficients, decodeField, decodePayload } from "./lib/parts.js";
export { toPixels } from "./lib/pixels.js";
export { readSafetensors } from "./lib/safetensors.js";
export { HttpSource } from "./lib/source.js";
export { openGroup } from "./lib/zarr.js";
