/** From samples to the record that is written, printed and read again. */
import { hashBytes } from "../../base/files.ts";
import { sum } from "../../base/sum.ts";
import { toolVersion } from "../../base/version.ts";
import type { EvalTask, SkippedTask, SuiteSection } from "../../eval/item.ts";
import type { Arm } from "../../eval/run/evaluation.ts";
import { evalRows, type StatisticsSettings } from "../../eval/run/rows.ts";
import { usualPower } from "../../eval/statistics/power.ts";
import { EVAL_RESULT_VERSION, type EvalResult } from "../../formats/eval-result.ts";
import type { Sample, SampleFingerprint } from "../../formats/sample-journal.ts";
import { fullLayers } from "../../pattern/pattern.ts";

export interface EvalFindings {
  /** What decided outputs and scores. */
  fingerprint: SampleFingerprint;
  /** What was asked for beside that: lengths, samples, data. */
  described: EvalResult["settings"];
  arms: readonly Arm[];
  tasks: readonly EvalTask[];
  /** Suites that were joined into the one that ran. */
  sections?: readonly SuiteSection[] | undefined;
  /** Samples of each item in the order of the arms, items in the order of the suite. */
  items: readonly Sample[][];
  statistics: StatisticsSettings;
  notes: readonly string[];
  skipped: readonly SkippedTask[];
  bad: EvalResult["bad_records"];
  wallSeconds: number;
  runtime: string;
  /** The command line, as the file keeps it. */
  command: string;
}

export function evalRecord(findings: EvalFindings): EvalResult {
  const { fingerprint, arms, tasks, items, statistics } = findings;
  const { margin, alpha, permutations, seed } = statistics;
  return {
    schema_version: EVAL_RESULT_VERSION,
    suite: {
      name: fingerprint.suite,
      version: fingerprint.suite_version,
      task_versions: Object.fromEntries(tasks.map(({ name, version }) => [name, version])),
      sections: findings.sections?.map(({ name, version, tasks: own }) => ({ name, version, tasks: [...own] })),
    },
    model: {
      name: fingerprint.model_name,
      config_hash: fingerprint.model_config_hash,
      weight_hash: fingerprint.weight_hash,
      tokenizer_hash: fingerprint.tokenizer_hash,
      chat_template: fingerprint.chat_template,
      chat_template_hash: fingerprint.chat_template_hash,
    },
    settings: { ...fingerprint.settings, ...findings.described },
    statistics: { margin, alpha, power: usualPower.power, permutations, seed },
    arms: arms.map((arm, index) =>
      armRecord(
        arm,
        items.map((samples) => samples[index] as Sample),
      ),
    ),
    rows: evalRows(
      items,
      tasks,
      arms.map(({ pattern }) => pattern),
      statistics,
    ),
    notes: [...findings.notes],
    skipped_tasks: findings.skipped.map(({ task, reason }) => ({ task, reason })),
    bad_records: [...findings.bad],
    prompts_sha256: hashBytes(items.map(([first]) => first?.prompt_sha256 ?? "").join("\n")),
    wall_seconds: findings.wallSeconds,
    tool: { version: toolVersion, runtime: findings.runtime, command: findings.command },
  };
}

function armRecord({ name, pattern }: Arm, samples: readonly Sample[]): EvalResult["arms"][number] {
  const run = samples.filter(({ finish }) => finish !== "too-long");
  return {
    name,
    index_topk_pattern: pattern,
    full_layers: fullLayers(pattern).length,
    prompt_tokens: sum(run.map((sample) => sample.prompt_tokens)),
    generated_tokens: sum(run.map((sample) => sample.output_tokens.length)),
    prefill_seconds: sum(run.map((sample) => sample.prefill_seconds)),
    decode_seconds: sum(run.map((sample) => sample.decode_seconds)),
  };
}
