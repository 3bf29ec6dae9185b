/**
 * The journal of an evaluation, which is also the file of its samples: one line for each item and arm, with everything
 * that a scorer needs, so that `eval --from` scores it again without a model or data.
 */
import { z } from "zod";
import { AppendLog, type LogContent, type LogKind, type LogMode, namedFields, readLog } from "./append-log.ts";
import { count, letters, seconds, settings, share } from "./fields.ts";

/** What the first line of a samples file calls itself. */
export const SAMPLES_KIND = "indexcache-eval-samples";

const fingerprintSchema = z.object({
  model_name: z.string(),
  model_config_hash: z.string(),
  weight_hash: z.string(),
  tokenizer_hash: z.string(),
  /** "none", "model", or what was given. */
  chat_template: z.string(),
  chat_template_hash: z.string().nullable(),
  suite: z.string(),
  suite_version: z.int(),
  /** What decides outputs or scores beside the above: seed, device, dtype, how the suite was asked for. */
  settings,
  tool_version: z.string(),
});

const sampleSchema = z.object({
  task: z.string(),
  task_version: z.int(),
  length: count.optional(),
  id: z.string(),
  arm: z.object({
    name: z.string(),
    pattern: letters,
    /** 0, or more for an arm that runs a pattern once again, or on another model. */
    repeat: count,
  }),
  prompt_sha256: z.string(),
  prompt_tokens: count,
  /** "too-long": the prompt has no room in the model's window, nothing was run. */
  finish: z.enum(["eos", "stop", "length", "window", "too-long"]),
  output: z.string(),
  output_tokens: z.array(count),
  /** The first turn's output, where a second one was scored. */
  thought: z.string().optional(),
  /** Thinking mode: what came before the answer. One that never closed left no answer. */
  thinking: z.object({ text: z.string(), tokens: count, closed: z.boolean() }).optional(),
  score: share,
  /** Negative log-likelihood of the gold answer after the prompt. */
  gold_loss: z.object({ nats: z.number(), tokens: count }).optional(),
  /** Log-probability of each choice. */
  choice_log_probabilities: z.array(z.number()).optional(),
  prefill_seconds: seconds,
  decode_seconds: seconds,
  item: z.object({
    references: z.array(z.string()),
    gold_answer: z.string(),
    required_start: z.string().optional(),
    choices: z.array(z.string()).optional(),
    classes: z.array(z.string()).optional(),
    cluster: z.string().optional(),
    groups: z.record(z.string(), z.string()).optional(),
    truncated: z.object({ before: count, after: count }).optional(),
    depth: z.object({ tokens: count, share }).optional(),
    /** Generated prompts: wrapper, prompt and the task's own answer budget as a share of the length asked for. */
    fill: share.optional(),
  }),
});

export type SampleFingerprint = z.infer<typeof fingerprintSchema>;
/** One item under one arm. */
export type Sample = z.infer<typeof sampleSchema>;

const sampleJournal: LogKind<SampleFingerprint, Sample> = {
  kind: SAMPLES_KIND,
  format: 1,
  fingerprint: fingerprintSchema,
  entry: sampleSchema,
  // Left out: names, which say nothing that a hash does not. Patterns, tasks and items are no part of it: each line names
  // its own, so that a run can go on with more of them.
  compared: ({ model_name: _, chat_template: __, ...others }) => new Map(namedFields(others)),
};

/** What differs between two runs, by the names that messages use; names of models and templates are not compared. */
export function differencesOfRuns(left: SampleFingerprint, right: SampleFingerprint): string[] {
  const [mine, theirs] = [sampleJournal.compared(left), sampleJournal.compared(right)];
  return [...new Set([...mine.keys(), ...theirs.keys()])].filter((name) => mine.get(name) !== theirs.get(name));
}

export type SampleJournal = AppendLog<Sample>;

export function openSampleJournal(path: string, fingerprint: SampleFingerprint, mode: LogMode): Promise<SampleJournal> {
  return AppendLog.open(path, sampleJournal, fingerprint, mode);
}

export function readSamples(path: string): Promise<LogContent<SampleFingerprint, Sample> | undefined> {
  return readLog(path, sampleJournal);
}
