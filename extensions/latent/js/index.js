// What others import.

export { openCodec } from "./lib/codec.js";
export { LatentError } from "./lib/errors.js";
export { decodeCoefficients, decodeField, decodePayload } from "./lib/parts.js";
export { toPixels } from "./lib/pixels.js";
export { readSafetensors } from "./lib/safetensors.js";
