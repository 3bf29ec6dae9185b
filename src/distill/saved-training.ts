/** A training between two steps, as arrays that a file holds. */
import type { FloatArray } from "../checkpoint/derived/float-file.ts";
import type { Moments } from "./adamw.ts";
import type { Tensors, TrainingState } from "./training.ts";

/** The indexers that did best on held-out text so far. */
export interface Best {
  step: number;
  /** What they miss there; infinite before the first measurement. */
  missed: number;
  /** Held-out KL before the first step, nats, all layers together; infinite before the first measurement. */
  opening: number;
  parameters: Map<number, Tensors>;
}

export interface SavedTraining {
  training: TrainingState;
  best: Best;
}

export function toArrays({ training, best }: SavedTraining): Map<string, FloatArray> {
  const arrays = new Map<string, FloatArray>();
  arrays.set("steps", Float64Array.of(training.step, best.step, best.missed, best.opening));
  const put = (kind: string, parameters: ReadonlyMap<number, Tensors>): void => {
    for (const [layer, tensors] of parameters) {
      for (const [name, values] of Object.entries(tensors)) arrays.set(`${kind}/${layer}/${name}`, values);
    }
  };
  put("now", training.parameters);
  put("best", best.parameters);
  for (const [layer, tensors] of training.moments) {
    for (const [name, { steps, first, second }] of Object.entries(tensors)) {
      arrays.set(`steps/${layer}/${name}`, Float64Array.of(steps));
      arrays.set(`first/${layer}/${name}`, first);
      arrays.set(`second/${layer}/${name}`, second);
    }
  }
  return arrays;
}

export function fromArrays(arrays: ReadonlyMap<string, FloatArray>): SavedTraining {
  const unknown = Number.POSITIVE_INFINITY;
  const [step = 0, bestStep = 0, missed = unknown, opening = unknown] = arrays.get("steps") ?? [];
  const parameters = new Map<number, Tensors>();
  const best = new Map<number, Tensors>();
  const moments = new Map<number, Record<string, Moments>>();
  for (const [path, values] of arrays) {
    const [kind, number, name] = path.split("/");
    if (name === undefined) continue;
    const layer = Number(number);
    if (kind === "now" || kind === "best") {
      const target = kind === "now" ? parameters : best;
      target.set(layer, { ...target.get(layer), [name]: values as Float32Array });
    }
    if (kind !== "first") continue;
    const second = arrays.get(`second/${layer}/${name}`) as Float64Array;
    const [steps = 0] = arrays.get(`steps/${layer}/${name}`) ?? [];
    moments.set(layer, { ...moments.get(layer), [name]: { steps, first: values as Float64Array, second } });
  }
  return { training: { step, parameters, moments }, best: { step: bestStep, missed, opening, parameters: best } };
}
