/** Which element of an FP8 weight which scale belongs to, under all the names and shapes in which scales are stored. */
import { InputError } from "../base/errors.ts";
import { elementsIn, exponentTypes } from "./dtype.ts";
import type { Quantization, ScaleStrategy } from "./quantization.ts";
import type { CheckpointTensor } from "./shards.ts";

/** Weights are their FP8 numbers times their scales, by either name: `_scale_inv` is DeepSeek's word for the same. */
export const scaleSuffixes = ["_scale_inv", "_scale"] as const;

/** How the scales of a matrix lie: an array `[across, along]`, one for each block of `rows` x `columns`. */
export interface ScaleGrid {
  across: number;
  along: number;
  rows: number;
  columns: number;
}

/** The blocks of a config that names none: those of DeepSeek's and GLM's own FP8 releases. */
const usualBlock: [number, number] = [128, 128];
/** The runs of MXFP8, whose scales are exponents. */
const exponentRun: [number, number] = [1, 32];

/**
 * @param shape of the scales, for one matrix `[height, width]`
 * @returns undefined if the shape fits no layout that the config allows
 */
export function scaleGrid(
  shape: readonly number[],
  [height, width]: readonly [number, number],
  quantization: Quantization | undefined,
  dtype: string,
): ScaleGrid | undefined {
  const { strategies } = quantization ?? {};
  const allowed = (...names: ScaleStrategy[]) =>
    strategies === undefined || names.some((name) => strategies.includes(name));
  const count = elementsIn(shape);
  for (const [rows, columns] of allowedBlocks(quantization, dtype)) {
    const across = Math.ceil(height / rows);
    const along = Math.ceil(width / columns);
    if (!allowed("block", "group") || shape.length !== 2 || shape[0] !== across || shape[1] !== along) continue;
    return { across, along, rows, columns };
  }
  // One scale for all of it is the same in every layout that has one.
  if (count === 1) return { across: 1, along: 1, rows: height, columns: width };
  const isColumn = shape.length === 1 || (shape.length === 2 && shape[1] === 1);
  if (isColumn && shape[0] === height && allowed("channel"))
    return { across: height, along: 1, rows: 1, columns: width };
  return undefined;
}

function allowedBlocks(quantization: Quantization | undefined, dtype: string): [number, number][] {
  if (quantization !== undefined && quantization.blocks.length > 0) return quantization.blocks;
  return Object.hasOwn(exponentTypes, dtype) ? [usualBlock, exponentRun] : [usualBlock];
}

/** What the shape should be, for a message. */
export function expectedScales(
  [height, width]: readonly [number, number],
  quantization: Quantization | undefined,
): string {
  const blocks = allowedBlocks(quantization, "");
  const grids = blocks.map(
    ([rows, columns]) =>
      `blocks of ${rows} x ${columns} over [${height}, ${width}] make it [${Math.ceil(height / rows)}, ${Math.ceil(width / columns)}]`,
  );
  const { strategies } = quantization ?? {};
  const words = strategies?.includes("block") === false && !strategies.includes("group") ? [] : grids;
  if (strategies === undefined || strategies.includes("channel"))
    words.push(`one for each row makes it [${height}, 1]`);
  if (strategies === undefined || strategies.includes("tensor")) words.push("one for the whole weight makes it []");
  return words.join(", ");
}

/**
 * The scales that belong to an FP8 weight.
 * @param find a tensor by its name
 * @param where describes a tensor, for messages
 * @throws InputError if there are none, two sets, of a dtype that is not read, or more than a factor belongs to them
 */
export function findScales(
  name: string,
  find: (name: string) => CheckpointTensor | undefined,
  where: (tensor: CheckpointTensor) => string,
  weight: CheckpointTensor,
): CheckpointTensor {
  const found = scaleSuffixes.flatMap((suffix) => find(`${name}${suffix}`) ?? []);
  const [scale, second] = found;
  if (scale === undefined) {
    throw new InputError(`${where(weight)} is FP8 and has no "${name}${scaleSuffixes.join(`" or "${name}`)}"`);
  }
  if (second !== undefined) {
    throw new InputError(`${where(weight)} has two sets of scales, "${scale.name}" and "${second.name}"`);
  }
  const zero = find(`${name}_zero_point`);
  if (zero !== undefined) throw new InputError(`${where(weight)} has "${zero.name}": asymmetric scales are not read`);
  if (!["F32", "BF16", "F16"].includes(scale.dtype) && !Object.hasOwn(exponentTypes, scale.dtype)) {
    throw new InputError(`${where(scale)} has dtype ${scale.dtype}; scales may be F32, BF16, F16 or F8_E8M0`);
  }
  return scale;
}
