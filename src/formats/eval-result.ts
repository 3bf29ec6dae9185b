/**
 * The result file of an evaluation: everything that is needed to audit it. One JSON object, snake_case; docs/eval.md
 * explains it. Scores are shares (0 to 1), margins and differences too; only tables print points.
 */
import { z } from "zod";
import { writeFileAtomically } from "../base/files.ts";
import { LARGEST_WHOLE_FILE } from "../base/user-files.ts";
import { count, seconds, settings, share } from "./fields.ts";
import { readText } from "./text-file.ts";
import { parseJson } from "./validation.ts";

/** Readers refuse any other number; it goes up when an old reader would misunderstand a new file. */
export const EVAL_RESULT_VERSION = 1;

/** Error probabilities below it are refused: no number of items would say anything. */
export const SMALLEST_ALPHA = 1e-6;

const interval = z.object({ low: z.number(), high: z.number() });

const comparison = z.object({
  arm: count.describe("index in `arms`; the other side is the baseline, arm 0"),
  items: count,
  difference: z.number().describe("score of the arm less the baseline's; of several cells the mean of theirs"),
  interval: interval.describe("two-sided, of confidence 1 - alpha"),
  interval_method: z
    .enum(["exact score", "bounded mean", "agresti-min", "bootstrap", "bootstrap, widened"])
    .describe("the last three: only in older files"),
  bounds: interval.describe("each one-sided of confidence 1 - alpha; the verdict looks at them"),
  p: share.describe("two-sided, of no difference"),
  test: z.enum(["mcnemar", "sign-flip"]),
  mid_p: share.optional(),
  p_holm: share.optional().describe("task rows: corrected for their number"),
  lost: count.describe("items with a lower score than the baseline's"),
  gained: count,
  same_outputs: count.describe("items whose generated tokens equal the baseline's"),
  first_divergence: count.optional().describe("median position of the first token that differs, where outputs do"),
  minimum_detectable: z.number().optional().describe("difference seen with the chance of 80%; absent: none would be"),
  gold_loss: z
    .object({ items: count, difference: z.number(), interval: interval.optional() })
    .optional()
    .describe("nats per token of the gold answer, arm less baseline"),
  verdict: z.enum(["identical", "non-inferior", "inferior", "inconclusive"]),
  items_needed: count
    .optional()
    .describe("inconclusive: so many more items settle it with the chance `power`; absent: a million would not"),
  note: z
    .enum(["ceiling", "floor", "no effect"])
    .optional()
    .describe(
      "ceiling: every item right under both arms; floor: the baseline scores no more than the margin or than guessing; no effect: the patterns differ and nothing else does. Under the last two no loss can show",
    ),
});

const row = z.object({
  kind: z.enum(["task", "length", "group", "overall"]),
  name: z.string(),
  task: z.string().optional(),
  length: count.optional(),
  group: z.object({ name: z.string(), value: z.string() }).optional(),
  endpoint: z
    .enum(["generation", "choices"])
    .describe("the task's metric on the output; or whether the gold choice is the most likely one"),
  metric: z.string(),
  scores: z.enum(["binary", "graded"]),
  items: count.describe("scored under every arm"),
  cells: count.describe("tasks at lengths that the row is the mean of"),
  counts: z.object({
    truncated: count.describe("prompts cut in the middle"),
    too_long: count.describe("prompts without room in the model's window: run under no arm, scored by none"),
    dropped_empty: count
      .optional()
      .describe("LongBench v2 with --empty-outputs drop: items left out because an arm's output is empty"),
    underfilled: count.optional().describe("generated prompts that fill less than 90% of the length asked for"),
  }),
  arms: z.array(
    z.object({
      score: share,
      interval: interval.describe("of confidence 1 - alpha: Wilson's for one cell, Student's for a mean of cells"),
      gold_loss: z.number().optional().describe("mean nats per token of the gold answer"),
      empty: count.describe("outputs without text"),
      cut_off: count.describe("outputs that the token budget or the window ended"),
      unclosed: count.optional().describe("thinking mode: thoughts that never closed, counted as no answer"),
    }),
  ),
  comparisons: z.array(comparison),
});

const armRecord = z.object({
  name: z.string(),
  index_topk_pattern: z.string(),
  full_layers: count,
  prompt_tokens: count.describe("of prefills that were run or replayed"),
  generated_tokens: count,
  prefill_seconds: seconds.describe(
    "of its layers, those it shares with other arms counted in full; on a server, of its requests for scores",
  ),
  decode_seconds: seconds.describe("on a server, of its requests for answers, prefills included"),
});

export const evalResultSchema = z
  .object({
    schema_version: z.literal(EVAL_RESULT_VERSION),
    suite: z.object({
      name: z.string(),
      version: z.int(),
      task_versions: z.record(z.string(), z.int()),
      sections: z
        .array(z.object({ name: z.string(), version: z.int(), tasks: z.array(z.string()) }))
        .optional()
        .describe("suites that were joined into this one, with their tasks"),
    }),
    model: z.object({
      name: z.string(),
      config_hash: z.string(),
      weight_hash: z.string(),
      tokenizer_hash: z.string(),
      chat_template: z.string(),
      chat_template_hash: z.string().nullable(),
    }),
    settings: settings.describe("what decides outputs and scores: seed, device, dtype, how the suite was asked for"),
    statistics: z.object({
      margin: share,
      alpha: z.number().min(SMALLEST_ALPHA).lt(0.5),
      power: share.optional().describe("chance with which `items_needed` more items settle a verdict"),
      bootstrap: count.optional().describe("resamples; only in older files"),
      permutations: count,
      seed: z.int(),
    }),
    arms: z.array(armRecord).min(1),
    rows: z.array(row),
    notes: z.array(z.string()).describe("what a reader of the scores has to know about the data"),
    skipped_tasks: z.array(z.object({ task: z.string(), reason: z.string() })),
    bad_records: z.array(z.object({ where: z.string(), problem: z.string() })),
    prompts_sha256: z.string().describe("SHA-256 over the prompts' own, in order: equal for equal prompts"),
    wall_seconds: seconds.describe("of this run; what was replayed from the journal took none"),
    tool: z.object({
      version: z.string(),
      runtime: z.string(),
      command: z.string().optional().describe("command line of the run that wrote the file"),
    }),
  })
  .meta({ title: "IndexCache evaluation result" });

export type EvalResult = z.infer<typeof evalResultSchema>;
export type EvalRow = EvalResult["rows"][number];
export type EvalComparison = EvalRow["comparisons"][number];

/** The JSON Schema that `docs/eval.schema.json` holds. */
export function evalResultJsonSchema(): string {
  return `${JSON.stringify(z.toJSONSchema(evalResultSchema, { io: "input" }), null, 2)}\n`;
}

export function formatEvalResult(result: EvalResult): string {
  return `${JSON.stringify(evalResultSchema.parse(result), null, 2)}\n`;
}

/** Writes a result file, all or nothing. */
export async function writeEvalResult(path: string, result: EvalResult): Promise<void> {
  await writeFileAtomically(path, formatEvalResult(result));
}

/** @throws InputError naming the file and the field */
export async function readEvalResult(path: string): Promise<EvalResult> {
  const text = await readText(path, `result file "${path}"`, { limit: LARGEST_WHOLE_FILE });
  return parseJson(text, evalResultSchema, `Result file "${path}"`, "docs/eval.md describes the file");
}
