// The one error that is thrown on purpose: a sentence that says what was found and what was expected.

export class LatentError extends Error {
  constructor(message) {
    super(message);
    this.name = "LatentError";
  }
}

export function must(condition, message) {
  if (!condition) throw new LatentError(message);
}
