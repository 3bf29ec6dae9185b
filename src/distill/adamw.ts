/** AdamW without weight decay (Kingma and Ba 2015; Loshchilov and Hutter 2019), betas 0.9 and 0.95, in double precision. */

const beta1 = 0.9;
const beta2 = 0.95;
const epsilon = 1e-8;

/** Means of the gradient and of its square, of one tensor. */
export interface Moments {
  steps: number;
  first: Float64Array;
  second: Float64Array;
}

export function noMoments(size: number): Moments {
  return { steps: 0, first: new Float64Array(size), second: new Float64Array(size) };
}

/** Moves a tensor against its gradient, scaled by `scale`; changes `values` and `moments`. */
export function adamStep(
  values: Float32Array,
  gradient: Float32Array,
  moments: Moments,
  rate: number,
  scale: number,
): void {
  const { first, second } = moments;
  moments.steps++;
  const unbiased1 = 1 - beta1 ** moments.steps;
  const unbiased2 = 1 - beta2 ** moments.steps;
  for (let i = 0; i < values.length; i++) {
    const g = (gradient[i] as number) * scale;
    const m = beta1 * (first[i] as number) + (1 - beta1) * g;
    const v = beta2 * (second[i] as number) + (1 - beta2) * g * g;
    first[i] = m;
    second[i] = v;
    values[i] = (values[i] as number) - (rate * (m / unbiased1)) / (Math.sqrt(v / unbiased2) + epsilon);
  }
}

/** Euclidean norm of all tensors together. */
export function norm(tensors: Iterable<Float32Array>): number {
  let total = 0;
  for (const tensor of tensors) for (const value of tensor) total += value * value;
  return Math.sqrt(total);
}
