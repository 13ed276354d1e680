// Decodes tiles beside the page: one job after the other.

import { decodeJob } from "./image.js";
import { LatentError } from "./errors.js";

const models = new Map();

self.onmessage = ({ data }) => {
  if (data.model) {
    models.set(data.modelId, data.model);
    return;
  }
  const { id, job } = data;
  try {
    const started = performance.now();
    const done = decodeJob({ ...job, model: models.get(job.modelId) });
    done.took = performance.now() - started;
    self.postMessage({ id, done }, (done.bands ?? []).map((band) => band.data.buffer));
  } catch (error) {
    self.postMessage({ id, error: error.message, expected: error instanceof LatentError });
  }
};
