/** RoPE parameters: transformers' "default" and "yarn" (`modeling_rope_utils`), with the softmax scale that YaRN changes. */
import { z } from "zod";
import { InputError } from "../base/errors.ts";

export const ropeSchema = z.object({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: z.number().positive().optional(),
  factor: z.number().positive().optional(),
  beta_fast: z.number().positive().optional(),
  beta_slow: z.number().positive().optional(),
  mscale: z.number().optional(),
  mscale_all_dim: z.number().optional(),
  original_max_position_embeddings: z.number().int().positive().optional(),
  attention_factor: z.number().nullish(),
  truncate: z.boolean().optional(),
});

export interface RopeParameters {
  /** Inverse frequencies, `[qk_rope_head_dim / 2]`, fp32. */
  inverseFrequencies: Float32Array;
  /** Multiplier of cos and sin. */
  attentionFactor: number;
  /** Factor on the main softmax scale (never on the indexer's). */
  softmaxFactor: number;
}

interface RopeFields {
  qk_rope_head_dim: number;
  max_position_embeddings?: number | undefined;
  rope_theta?: number | undefined;
  rope_parameters?: z.infer<typeof ropeSchema> | null | undefined;
  rope_scaling?: z.infer<typeof ropeSchema> | null | undefined;
}

/** @throws InputError for a rope type other than default and yarn, or YaRN without a factor */
export function readRopeParameters(raw: RopeFields, path: string): RopeParameters {
  const parameters = raw.rope_scaling ?? raw.rope_parameters ?? {};
  const type = parameters.rope_type ?? parameters.type ?? "default";
  const theta = parameters.rope_theta ?? raw.rope_theta ?? 10000;
  const dim = raw.qk_rope_head_dim;
  if (type === "default") {
    return { inverseFrequencies: plainFrequencies(theta, dim), attentionFactor: 1, softmaxFactor: 1 };
  }
  if (type !== "yarn")
    throw new InputError(`"${path}": rope_type "${type}" is not supported; supported are default and yarn`);
  const { factor, mscale, mscale_all_dim: mscaleAllDim } = parameters;
  if (factor === undefined) throw new InputError(`"${path}": rope_type yarn needs a factor`);
  const plain = plainFrequencies(theta, dim);
  const window = parameters.original_max_position_embeddings ?? raw.max_position_embeddings ?? 4096;
  const [low, high] = yarnRange(dim, theta, window, parameters);
  const inverseFrequencies = plain.map((frequency, j) => {
    const ramp = Math.min(Math.max((j - low) / (high - low), 0), 1);
    return (frequency / factor) * ramp + frequency * (1 - ramp);
  });
  const attentionFactor =
    parameters.attention_factor ??
    (mscale && mscaleAllDim ? yarnScale(factor, mscale) / yarnScale(factor, mscaleAllDim) : yarnScale(factor, 1));
  const softmaxFactor = mscaleAllDim ? yarnScale(factor, mscaleAllDim) ** 2 : 1;
  return { inverseFrequencies, attentionFactor, softmaxFactor };
}

function plainFrequencies(theta: number, dim: number): Float32Array {
  return Float32Array.from({ length: dim / 2 }, (_, j) => 1 / Math.fround(theta ** Math.fround((2 * j) / dim)));
}

/** g(s, m) of the YaRN paper's attention temperature. */
function yarnScale(factor: number, mscale: number): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

/** First and last rotary dimension of the ramp between interpolated and kept frequencies. */
function yarnRange(
  dim: number,
  theta: number,
  window: number,
  parameters: z.infer<typeof ropeSchema>,
): [low: number, high: number] {
  const correction = (rotations: number) =>
    (dim * Math.log(window / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  let low = correction(parameters.beta_fast ?? 32);
  let high = correction(parameters.beta_slow ?? 1);
  if (parameters.truncate ?? true) {
    low = Math.floor(low);
    high = Math.ceil(high);
  }
  low = Math.max(low, 0);
  high = Math.min(high, dim - 1);
  return [low, low === high ? high + 0.001 : high];
}
