// Tensors by name: eight bytes of length, a header of JSON, numbers (https://github.com/huggingface/safetensors).

import { copy } from "./bits.js";
import { LatentError, must } from "./errors.js";

const TYPES = {
  F32: Float32Array, F64: Float64Array, U8: Uint8Array, I8: Int8Array, U16: Uint16Array, I16: Int16Array,
  U32: Uint32Array, I32: Int32Array, I64: BigInt64Array, U64: BigUint64Array,
};

/** @returns {Map<string, {shape: number[], data: ArrayLike<number>}>} */
export function readSafetensors(bytes) {
  must(bytes.length >= 8, "The file of tensors is cut short.");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = Number(view.getBigUint64(0, true));
  must(length <= bytes.length - 8, "The file of tensors is damaged: its header is longer than the file.");
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  } catch {
    throw new LatentError("The file of tensors is damaged: its header is no JSON.");
  }
  const tensors = new Map();
  for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const Type = TYPES[dtype];
    must(Type, `Tensor ${name} is of type ${dtype}, which this reader does not know.`);
    const size = shape.reduce((a, b) => a * b, 1) * Type.BYTES_PER_ELEMENT;
    const [from, to] = offsets;
    must(to - from === size && from >= 0 && 8 + length + to <= bytes.length, `Tensor ${name} is damaged: its place and its shape differ.`);
    tensors.set(name, { shape, data: new Type(copy(bytes, 8 + length + from, 8 + length + to).buffer) });
  }
  return tensors;
}
