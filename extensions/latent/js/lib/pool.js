// Workers that decode: `run` of a pool is the runner of `readPixels` and `readTile` in browsers.

import { LatentError } from "./errors.js";

/** As many workers as are of use; each does one job at a time. */
export class WorkerPool {
  constructor(count = Math.max(1, Math.min(8, (globalThis.navigator?.hardwareConcurrency ?? 2)))) {
    this.workers = Array.from({ length: count }, () => {
      const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
      const state = { worker, busy: false, models: new Set() };
      worker.onmessage = ({ data }) => this.#answer(state, data);
      worker.onerror = (event) => this.#failed(event.message);
      return state;
    });
    this.waiting = [];
    this.pending = new Map();
    this.modelIds = new WeakMap();
    this.next = 0;
    this.took = 0;
    this.jobs = 0;
  }

  /** Decodes; the newest job that waits goes first, since it is what is looked at. */
  run(job) {
    return new Promise((resolve, reject) => {
      this.waiting.push({ job, resolve, reject });
      this.#go();
    });
  }

  #go() {
    for (const state of this.workers) {
      if (state.busy || this.waiting.length === 0) continue;
      const { job, resolve, reject } = this.waiting.pop();
      const { model, ...rest } = job;
      if (!this.modelIds.has(model)) this.modelIds.set(model, this.next++);
      const modelId = this.modelIds.get(model);
      if (!state.models.has(modelId)) {
        state.models.add(modelId);
        state.worker.postMessage({ model, modelId });
      }
      const id = this.next++;
      this.pending.set(id, { resolve, reject });
      state.busy = true;
      state.worker.postMessage({ id, job: { ...rest, modelId } });
    }
  }

  #answer(state, { id, done, error, expected }) {
    state.busy = false;
    const { resolve, reject } = this.pending.get(id);
    this.pending.delete(id);
    if (error !== undefined) {
      reject(expected ? new LatentError(error) : new Error(error));
    } else {
      this.took += done.took;
      this.jobs++;
      resolve(done);
    }
    this.#go();
  }

  #failed(message) {
    for (const { reject } of this.pending.values()) reject(new Error(`A worker failed: ${message}.`));
    this.pending.clear();
  }

  close() {
    for (const { worker } of this.workers) worker.terminate();
  }
}
