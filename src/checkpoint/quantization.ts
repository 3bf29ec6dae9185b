/**
 * How a checkpoint's weights are quantised: what its config says, and what the names and types of its tensors say. FP8 is
 * read; every other format is named, so that nobody looks for a missing tensor that only has another name there.
 */
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import type { StoredTensor } from "./safetensors.ts";

/** What `quantization_config` declares, as far as it decides how scales are laid out. */
export interface Quantization {
  /** For people: `compressed-tensors, pack-quantized, 4 bits`. */
  words: string;
  /** Do the weights have 8-bit floating point numbers by this config? undefined if it does not say. */
  isFp8: boolean | undefined;
  /** Edges `[rows, columns]` that blocks of scales may have; empty where none is declared. */
  blocks: [number, number][];
  /** Ways in which scales may be laid out; undefined if the config leaves it open. */
  strategies: ScaleStrategy[] | undefined;
}

/** One scale for a whole weight, for each row, for each run of a row, or for each block of rows and columns. */
export type ScaleStrategy = "tensor" | "channel" | "group" | "block";

const readFormats =
  "weights in BF16, F16, F32, or FP8 (E4M3) with scales for blocks, rows or whole weights (fp8, compressed-tensors, fbgemm_fp8, modelopt)";

export const quantizationHint = "use the BF16 or FP8 release of the model, or dequantise it first";

/** Fields that only describe: of another type than usual, they say nothing, and refuse nothing. */
const looseText = z.string().optional().catch(undefined);
const looseNumber = z.int().optional().catch(undefined);
const looseFlag = z.boolean().optional().catch(undefined);
const edge = z
  .number()
  .int()
  .min(1)
  .max(1 << 20);
const edges = z.tuple([edge, edge]);
const blockStructure = z
  .union([
    edges,
    z
      .string()
      .regex(/^\d+x\d+$/)
      .transform((text) => text.split("x").map(Number))
      .pipe(edges),
  ])
  .nullish()
  .catch(undefined);

const groupSchema = z.looseObject({
  weights: z
    .looseObject({
      num_bits: looseNumber,
      type: looseText,
      strategy: looseText,
      group_size: looseNumber,
      symmetric: looseFlag,
      block_structure: blockStructure,
    })
    .nullish()
    .catch(undefined),
  format: looseText,
});

const declaredSchema = z.looseObject({
  quant_method: looseText,
  format: looseText,
  fmt: looseText,
  quant_algo: looseText,
  bnb_4bit_quant_type: looseText,
  load_in_4bit: looseFlag,
  load_in_8bit: looseFlag,
  bits: looseNumber,
  w_bit: looseNumber,
  group_size: looseNumber,
  weight_block_size: edges.nullish().catch(undefined),
  config_groups: z
    .record(z.string(), groupSchema.catch({ weights: undefined, format: undefined }))
    .nullish()
    .catch({}),
});

/**
 * Reads `quantization_config` (or the names that other tools give it).
 * @param declared the object, undefined if the config has none
 */
export function readQuantization(declared: unknown): Quantization | undefined {
  const parsed = declaredSchema.safeParse(declared ?? undefined);
  if (!parsed.success) return undefined;
  const fields = parsed.data;
  const groups = Object.values(fields.config_groups ?? {}).flatMap(({ weights }) => (weights == null ? [] : [weights]));
  const method = fields.quant_method ?? (fields.group_size === undefined ? undefined : "mlx");
  const bits = new Set(
    [fields.bits, fields.w_bit, ...groups.map(({ num_bits: bits }) => bits)].filter((bits) => bits !== undefined),
  );
  if (fields.load_in_4bit === true) bits.add(4);
  if (fields.load_in_8bit === true) bits.add(8);
  const strategies = new Set(groups.flatMap(({ strategy }) => (strategy === undefined ? [] : [strategy])));
  const names = [method, fields.format, fields.quant_algo, fields.fmt, fields.bnb_4bit_quant_type];
  const words = [
    ...names,
    ...[...bits].map((count) => `${count} bits`),
    ...[...strategies].map((name) => `by ${name}`),
  ];
  return {
    words: words.filter((word) => word !== undefined).join(", ") || "of an unknown method",
    isFp8: declaresFp8(method, fields, groups),
    blocks: declaredBlocks(fields.weight_block_size, groups),
    strategies: declaredStrategies(method, fields.weight_block_size, strategies),
  };
}

function declaresFp8(
  method: string | undefined,
  { quant_algo: algorithm }: z.infer<typeof declaredSchema>,
  groups: readonly { num_bits?: number | undefined; type?: string | undefined }[],
): boolean | undefined {
  if (method === "fp8" || method === "fbgemm_fp8") return true;
  if (algorithm !== undefined) return /^(W8A8_)?FP8/i.test(algorithm);
  if (groups.length > 0) return groups.some(({ num_bits: bits, type }) => bits === 8 && type === "float");
  return method === undefined ? undefined : false;
}

function declaredBlocks(
  blockSize: [number, number] | null | undefined,
  groups: readonly z.infer<typeof groupSchema>["weights"][],
): [number, number][] {
  const found: [number, number][] = blockSize == null ? [] : [blockSize];
  for (const weights of groups) {
    if (weights?.block_structure != null) found.push(weights.block_structure);
    else if (weights?.strategy === "block") found.push([128, 128]);
    if (weights?.strategy === "group" && weights.group_size !== undefined && weights.group_size > 0) {
      found.push([1, weights.group_size]);
    }
  }
  return found;
}

function declaredStrategies(
  method: string | undefined,
  blockSize: [number, number] | null | undefined,
  stated: ReadonlySet<string>,
): ScaleStrategy[] | undefined {
  if (method === "fp8") return blockSize === null ? ["tensor", "channel"] : ["block", "tensor"];
  if (method === "fbgemm_fp8") return ["channel"];
  const known: readonly ScaleStrategy[] = ["tensor", "channel", "group", "block"];
  const found = known.filter((strategy) => stated.has(strategy));
  return found.length === 0 ? undefined : found;
}

/** Signs of formats in the tensors, most telling first: what a name ends in, and the dtype it has there. */
const signs: readonly { name: RegExp; dtype?: RegExp; format: string }[] = [
  { name: /\.weight_packed$/, dtype: /^U8$/, format: "NVFP4 (packed by compressed-tensors)" },
  { name: /\.weight_packed$/, format: "integers packed by compressed-tensors" },
  { name: /\.weight_scale_2$|_weight_scale_2$|\.weight_global_scale$/, format: "NVFP4" },
  { name: /\.g_idx$/, format: "GPTQ" },
  { name: /\.qzeros$/, format: "AWQ or GPTQ" },
  { name: /\.qweight$/, format: "integers packed into qweight (AWQ, GPTQ)" },
  { name: /\.quant_state\.bitsandbytes__|\.absmax$/, format: "bitsandbytes, 4 bits" },
  { name: /\.SCB$/, format: "bitsandbytes, 8 bits" },
  { name: /_blocks$/, dtype: /^U8$/, format: "MXFP4" },
  { name: /\.biases$/, format: "MLX, quantised" },
  { name: /\.W_q$/, format: "HQQ" },
  { name: /\.codebooks$/, format: "AQLM" },
  { name: /\.weight_scales$/, format: "EETQ" },
  { name: /./, dtype: /^F4$/, format: "4-bit floating point (F4)" },
  { name: /./, dtype: /^F6_/, format: "6-bit floating point (F6)" },
  { name: /_proj(\.weight)?$/, dtype: /^F8_E5M2$/, format: "FP8 E5M2" },
  { name: /_proj(\.weight)?$/, dtype: /^I8$/, format: "INT8" },
  { name: /_proj(\.weight)?$/, dtype: /^(U8|U32|I32)$/, format: "packed integers" },
];

/** The format that the tensors themselves speak of, where it is one that is not read. */
function formatOfTensors(tensors: Iterable<Pick<StoredTensor, "name" | "dtype">>): string | undefined {
  const all = [...tensors];
  return signs.find(({ name, dtype }) =>
    all.some((tensor) => name.test(tensor.name) && (dtype?.test(tensor.dtype) ?? true)),
  )?.format;
}

/**
 * The refusal of a checkpoint whose tensors cannot be used, if its format is why: one that its tensors show, or one that
 * only config.json names; undefined otherwise.
 * @param where what is quantised, for messages: `"folder"`
 */
export function unreadFormat(
  where: string,
  declared: Quantization | undefined,
  tensors: Iterable<Pick<StoredTensor, "name" | "dtype">>,
): InputError | undefined {
  const found = formatOfTensors(tensors);
  if (found === undefined && declared?.isFp8 !== false) return undefined;
  const shown = found === undefined ? undefined : `its tensors are ${found}`;
  const words = declared === undefined ? found : [declared.words, shown].filter(Boolean).join("; ");
  return new InputError(`${where} is quantised in a format that is not read: ${words}. Read are ${readFormats}`, {
    hint: quantizationHint,
  });
}
