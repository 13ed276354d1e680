// JSON from bytes.

import { LatentError } from "./errors.js";

/** Parses a document; `NaN` as a value, which some writers of codec.json leave bare, is read as the text "nan". */
export function parseJson(bytes, what) {
  let text = typeof bytes === "string" ? bytes : new TextDecoder().decode(bytes);
  if (text.includes("NaN")) text = text.replace(/"(?:[^"\\]|\\.)*"|\bNaN\b/g, (token) => (token === "NaN" ? '"nan"' : token));
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new LatentError(`${what} is no JSON: ${error.message}.`);
  }
}
