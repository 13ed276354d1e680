// JSON from bytes.

import { LatentError } from "./errors.js";

/** Parses a document; `what` names it in the sentence of a refusal. */
export function parseJson(bytes, what) {
  const text = typeof bytes === "string" ? bytes : new TextDecoder().decode(bytes);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new LatentError(`${what} is no JSON: ${error.message}.`);
  }
}
