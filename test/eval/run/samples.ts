/** Samples that nobody has generated: what a test needs of them and ordinary values for the rest. */
import type { EvalTask } from "../../../src/eval/item.ts";
import type { Sample } from "../../../src/formats/sample-journal.ts";

export const binaryTask: EvalTask = {
  name: "needle",
  version: 1,
  metric: "string_match_all",
  scores: "binary",
  maxNewTokens: 8,
  stop: [],
  score: (output, { references }) => (references.every((gold) => output.includes(gold)) ? 1 : 0),
};

export const gradedTask: EvalTask = { ...binaryTask, name: "words", scores: "graded", metric: "f1" };

export interface SampleChanges extends Partial<Omit<Sample, "item" | "arm">> {
  pattern?: string;
  repeat?: number;
  item?: Partial<Sample["item"]>;
}

export function sample({ pattern = "FFFF", repeat = 0, item, ...changes }: SampleChanges = {}): Sample {
  return {
    task: "needle",
    task_version: 1,
    id: "0",
    arm: { name: pattern, pattern, repeat },
    prompt_sha256: "aa",
    prompt_tokens: 100,
    finish: "eos",
    output: "gold",
    output_tokens: [1, 2, 3],
    score: 1,
    gold_loss: { nats: 2, tokens: 4 },
    prefill_seconds: 0.5,
    decode_seconds: 0.25,
    ...changes,
    item: { references: ["gold"], gold_answer: " gold", ...item },
  };
}

/** One item under two patterns. */
export function pair(baseline: SampleChanges, candidate: SampleChanges = {}): Sample[] {
  return [sample(baseline), sample({ ...baseline, pattern: "FSFS", ...candidate })];
}
