// A codec as a catalogue holds it: codec.json and a file of tensors.

import { must } from "./errors.js";
import { parseJson } from "./json.js";
import { ransModel } from "./rans.js";
import { readSafetensors } from "./safetensors.js";

export const BUNDLE_FORMAT = "stac-latent-bundle-1";

/**
 * Makes a decoder's model of the two files of a codec.
 *
 * @param {Uint8Array | string | object} description codec.json
 * @param {Uint8Array} tensorBytes the file of tensors
 */
export function openCodec(description, tensorBytes) {
  const json = typeof description === "object" && !(description instanceof Uint8Array) ? description : parseJson(description, "codec.json");
  must(json.format === BUNDLE_FORMAT, `The codec is in the format ${json.format}; this decoder reads ${BUNDLE_FORMAT}. A newer decoder is needed.`);
  const tensors = readSafetensors(tensorBytes);
  const names = json.chain.map((stage) => stage.stage);
  const find = (name) => names.indexOf(name);
  const normalise = json.chain[0];
  must(normalise?.stage === "normalise", `The codec's chain (${names.join(", ")}) does not begin with normalise; this decoder knows no other.`);
  const codec = {
    name: json.name, space: json.space, kind: json.kind, bands: json.bands, chain: json.chain, tensors,
    dimensions: json.dimensions, mean: normalise.mean, unit: normalise.unit, probe: json.probe, json,
  };
  const lin = find("lin");
  if (lin >= 0) {
    const known = names.length === 3 && names[1] === "pyramid" && lin === 2;
    must(known, `The codec's chain is ${names.join(", ")}; of the lin family this decoder knows normalise, pyramid, lin.`);
    codec.bitstream = json.chain[lin].bitstream ?? "stac-latent-lin-1";
    codec.model = linModel(tensors, lin);
    codec.pyramid = json.chain[1];
  }
  const rans = find("rans");
  if (rans >= 0) codec.rans = ransModel(tensors, rans);
  return codec;
}

function linModel(tensors, stage) {
  const get = (name, shape) => {
    const tensor = tensors.get(`${stage}.${name}`);
    must(tensor, `The codec has no tensor ${stage}.${name}.`);
    const fits = tensor.shape.length === shape.length && tensor.shape.every((n, i) => shape[i] === 0 || n === shape[i]);
    must(fits, `Tensor ${stage}.${name} has the shape ${tensor.shape}; ${shape} was expected.`);
    return tensor;
  };
  const basis = get("basis", [7, 0, 0]);
  must(basis.shape[1] === basis.shape[2], `Tensor ${stage}.basis has the shape ${basis.shape}; squares were expected.`);
  return {
    basis: basis.data, basisSize: basis.shape[1], weights: Int32Array.from(get("weights", [20, 4, 8]).data),
    counts: get("counts", [4, 24, 16]).data, runs: get("runs", [4, 2]).data, signs: get("signs", [3, 2, 12, 2]).data,
  };
}
