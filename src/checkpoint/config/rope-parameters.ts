/**
 * RoPE parameters: transformers' "default", "linear" and "yarn" (`modeling_rope_utils`), with the softmax scale that YaRN
 * changes. Where Python asks for truth, an empty object, 0 and null are as good as absent.
 */
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { float32, sizeUpTo } from "./numbers.ts";

const positions = sizeUpTo(2 ** 31 - 1);
/** A number that stands for its default where it is 0 or null. */
const orDefault = z.union([float32, z.literal(0)]).nullish();

const fieldsSchema = z.looseObject({
  rope_type: z.string().nullish(),
  type: z.string().nullish(),
  rope_theta: float32.nullish(),
  partial_rotary_factor: z.literal(1, "is not 1: heads rotated in part are not supported").nullish(),
  factor: float32.nullish(),
  beta_fast: orDefault,
  beta_slow: orDefault,
  mscale: z.number().nullish(),
  mscale_all_dim: z.number().nullish(),
  original_max_position_embeddings: positions.nullish(),
  attention_factor: float32.nullish(),
  truncate: z.boolean().nullish(),
});

export const ropeSchema = fieldsSchema.refine(
  (fields) => !Object.values(fields).some((value) => typeof value === "object" && value !== null),
  "has parameters for kinds of layers; one set for all layers is supported",
);

type RopeFields = z.infer<typeof fieldsSchema>;

export interface RopeParameters {
  /** Inverse frequencies, `[qk_rope_head_dim / 2]`, fp32. */
  inverseFrequencies: Float32Array;
  /** Multiplier of cos and sin. */
  attentionFactor: number;
  /** Factor on the main softmax scale (never on the indexer's). */
  softmaxFactor: number;
}

interface ConfigFields {
  qk_rope_head_dim: number;
  original_max_position_embeddings?: number | null | undefined;
  rope_theta?: number | null | undefined;
  rope_parameters?: RopeFields | null | undefined;
  rope_scaling?: RopeFields | null | undefined;
}

/**
 * @param maxPositions `max_position_embeddings`, or its default
 * @throws InputError for a rope type other than default, linear and yarn, one without the factor that it needs, or scales
 * that are not finite
 */
export function readRopeParameters(raw: ConfigFields, maxPositions: number, path: string): RopeParameters {
  const rope = computeRopeParameters(raw, maxPositions, path);
  if (![rope.softmaxFactor, rope.attentionFactor, ...rope.inverseFrequencies].every(Number.isFinite))
    throw new InputError(`"${path}": factor and mscale of its rope parameters scale rotations by what is not finite`);
  return rope;
}

function computeRopeParameters(raw: ConfigFields, maxPositions: number, path: string): RopeParameters {
  const parameters = ropeFieldsOf(raw);
  const type = parameters.rope_type ?? parameters.type ?? "default";
  const theta = parameters.rope_theta ?? raw.rope_theta ?? 10000;
  const dim = raw.qk_rope_head_dim;
  const plain = plainFrequencies(theta, dim);
  if (type === "default") return { inverseFrequencies: plain, attentionFactor: 1, softmaxFactor: 1 };
  if (type !== "yarn" && type !== "linear") {
    throw new InputError(`"${path}": rope_type "${type}" is not supported; supported are default, linear and yarn`);
  }
  const { mscale, mscale_all_dim: mscaleAllDim } = parameters;
  const window = raw.original_max_position_embeddings ?? parameters.original_max_position_embeddings ?? maxPositions;
  if (parameters.factor == null && (type === "linear" || parameters.factor === undefined || mscaleAllDim)) {
    throw new InputError(`"${path}": rope_type ${type} needs a factor`);
  }
  const factor = parameters.factor ?? maxPositions / window;
  const softmaxFactor = mscaleAllDim ? yarnScale(factor, mscaleAllDim) ** 2 : 1;
  if (type === "linear") {
    return { inverseFrequencies: plain.map((frequency) => frequency / factor), attentionFactor: 1, softmaxFactor };
  }
  if (theta === 1) throw new InputError(`"${path}": rope_theta 1 has no frequencies for rope_type yarn`);
  const [low, high] = yarnRange(dim, theta, window, parameters);
  const inverseFrequencies = plain.map((frequency, j) => {
    const ramp = Math.min(Math.max((j - low) / (high - low), 0), 1);
    return (frequency / factor) * ramp + frequency * (1 - ramp);
  });
  const attentionFactor =
    parameters.attention_factor ??
    (mscale && mscaleAllDim ? yarnScale(factor, mscale) / yarnScale(factor, mscaleAllDim) : yarnScale(factor, 1));
  return { inverseFrequencies, attentionFactor, softmaxFactor };
}

/** transformers: `rope_scaling or rope_parameters`, where a dictionary without fields is false. */
export function ropeFieldsOf({ rope_scaling: old, rope_parameters: current }: ConfigFields): RopeFields {
  return [old, current].find((fields) => fields != null && Object.keys(fields).length > 0) ?? {};
}

/** Does the config hold two sets of parameters that differ? transformers takes `rope_scaling` then, and nothing of the other. */
export function hasTwoRopes({ rope_scaling: old, rope_parameters: current }: ConfigFields): boolean {
  const [first, second] = [old, current].map((fields) => JSON.stringify(Object.entries(fields ?? {}).sort()));
  return first !== second && first !== "[]" && second !== "[]";
}

function plainFrequencies(theta: number, dim: number): Float32Array {
  return Float32Array.from({ length: dim / 2 }, (_, j) => 1 / Math.fround(theta ** Math.fround((2 * j) / dim)));
}

/** g(s, m) of the YaRN paper's attention temperature. */
function yarnScale(factor: number, mscale: number): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

/** First and last rotary dimension of the ramp between interpolated and kept frequencies. */
function yarnRange(dim: number, theta: number, window: number, parameters: RopeFields): [low: number, high: number] {
  const correction = (rotations: number) =>
    (dim * Math.log(window / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  let low = correction(parameters.beta_fast || 32);
  let high = correction(parameters.beta_slow || 1);
  // An explicit null is false here too: only an absent field means true.
  if (parameters.truncate === undefined || parameters.truncate) {
    low = Math.floor(low);
    high = Math.ceil(high);
  }
  low = Math.max(low, 0);
  high = Math.min(high, dim - 1);
  return [low, low === high ? high + 0.001 : high];
}
