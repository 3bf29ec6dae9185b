/** `indexcache pattern apply`: a checkpoint that engines run with a pattern, without flags. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { InputError, UsageError } from "../../base/errors.ts";
import { hashBytes } from "../../base/files.ts";
import { placements } from "../../checkpoint/derived/derived-checkpoint.ts";
import { type EngineHeads, engineHeads } from "../../checkpoint/derived/engine-shape.ts";
import { findModel } from "../../checkpoint/hub-cache.ts";
import { type AppliedReport, applyPattern } from "../../engines/applied/applied-checkpoint.ts";
import { checkPattern } from "../../engines/check.ts";
import type { PatternSource } from "../../engines/pattern-source.ts";
import { readServedModel, type ServedModel } from "../../engines/served-model.ts";
import { isPublished } from "../../formats/published-pattern.ts";
import { readText } from "../../formats/text-file.ts";
import { fullLayers, type Pattern, parsePattern } from "../../pattern/pattern.ts";
import { counted, formatBytes } from "../../report/quantities.ts";
import { formatFields } from "../../report/text-table.ts";
import { choice, type Flags, option, required } from "../arguments/declared-option.ts";
import { outputOptions } from "../arguments/options.ts";
import { ByteCount } from "../console/patience.ts";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";
import { lettersOf, originFindings, readSource } from "./pattern-input.ts";

const options = [
  required("-o, --output <folder>", "the new checkpoint"),
  option("--restore <original>", "checkpoint to take indexers from that MODEL lacks"),
  option(
    "--engine-shape [heads=N]",
    "pad attention and indexers to the shape that engines' kernels take; the function stays the same",
    parseEngineShape,
  ),
  choice("--shards <how>", "how weight files that do not change get there", placements, "copy"),
  refusedPattern("indexcache pattern apply MODEL PATTERN -o FOLDER"),
  ...outputOptions,
] as const;

type ApplyFlags = Flags<typeof options>;

const help = `
The new folder holds config.json with indexer_types and index_topk_pattern, the weights without the indexers of Shared
layers, the index, tokenizer files, and a README.md that says where the checkpoint comes from and what it loses. vLLM,
SGLang, transformers (GLM-5), LMDeploy and llama.cpp's converter take it as it is.

Weight files that hold no such indexer do not change: --shards says whether they are copied (by reference where the file
system can) or linked. The original stays as it is; the way back takes the indexers from it.

--engine-shape is for tests of serving engines on a small model: their kernels take one shape (kv_lora_rank 512, RoPE 64,
nope and value 128, 32 or 64 index heads of 128). The padded model computes what the small one does, under any pattern;
index_topk must be a multiple of 128. heads=N: 8, 16, 32, 64 or 128 attention heads, 8 or more for each GPU.

Examples:
  $ indexcache pattern apply ./GLM-5.1 glm.json@1/4 -o ./GLM-5.1-quarter
  $ indexcache pattern apply ./GLM-5.1 glm.json@1/2 -o ./half --shards hardlink
  $ indexcache pattern apply ./GLM-5.1-quarter --restore ./GLM-5.1 -o ./again
  $ indexcache pattern apply ./GLM-5.1-quarter glm.json@1/2 --restore ./GLM-5.1 -o ./half
  $ indexcache pattern apply ./small --engine-shape heads=16 -o ./small-tp2`;

export function addPatternApplyCommand(pattern: Command): void {
  const command = pattern
    .command("apply")
    .description("Write a checkpoint that runs with a pattern, without flags")
    .argument("<model>", "folder of the checkpoint, or owner/name in the Hugging Face cache")
    .argument(
      "[pattern]",
      "a pattern in any form that `pattern` takes (default with --restore: the original's own; with --engine-shape: the model's own)",
    );
  addWork(command, { options, help, stopping: "Stopping; nothing will be left of the new folder" }, run);
}

/** Everywhere else a pattern is an option; here it is what the command is about. */
export function refusedPattern(usage: string): Option {
  return new Option("-p, --pattern <pattern>").hideHelp().argParser(() => {
    throw new UsageError("-p is no option of this command: the pattern is an argument", {
      hint: `leave out -p: ${usage}`,
    });
  });
}

/** The value that follows --engine-shape; without one, commander's own is true. */
function parseEngineShape(text: string): EngineHeads {
  const heads = engineHeads.find((count) => text === `heads=${count}`);
  if (heads !== undefined) return heads;
  throw new InvalidArgumentError(
    `Only heads=N may follow, N one of ${engineHeads.join(", ")}; MODEL and PATTERN come before --engine-shape.`,
  );
}

async function run(named: string, text: string | undefined, flags: ApplyFlags, terminal: Terminal): Promise<void> {
  if (text === undefined && flags.restore === undefined && flags.engineShape === undefined) {
    throw new UsageError("PATTERN is missing: only --restore and --engine-shape can do without", {
      hint: "indexcache pattern apply MODEL PATTERN -o FOLDER",
    });
  }
  const folder = await findModel(named);
  const model = await readServedModel(folder);
  if (model.shipped === undefined) {
    throw new InputError(`"${named}" is no folder with weights`, { hint: "MODEL is the folder of a checkpoint" });
  }
  const chosen = text === undefined ? undefined : await choosePattern(text, model);
  for (const warning of chosen?.warnings ?? []) terminal.warn(warning);
  const progress = new ByteCount(terminal, "writing weights");
  const file = chosen?.source.kind === "file" ? chosen.source.file : undefined;
  const report = await applyPattern(folder, chosen?.pattern, flags.output, {
    ...(flags.restore === undefined ? {} : { original: await findModel(flags.restore) }),
    ...(flags.engineShape === undefined
      ? {}
      : { engineShape: flags.engineShape === true ? {} : { heads: flags.engineShape } }),
    placement: flags.shards,
    signal: terminal.signal,
    origin: { ...(file === undefined ? {} : { file }), warnings: chosen?.warnings ?? [] },
    onProgress: (done, total) => progress.reach(done, total),
  });
  tell(report, flags, terminal);
}

/** The letters, checked for this model, and what speaks against them. */
async function choosePattern(
  text: string,
  model: ServedModel,
): Promise<{ source: PatternSource; pattern: Pattern; warnings: string[] }> {
  const source = await readSource(text);
  if (source.kind === "file" && !isPublished(source.file)) {
    const { architecture, layers } = source.file.model;
    if (architecture !== model.modelType || layers !== model.layers) {
      throw new InputError(
        `The pattern is of a ${architecture} model with ${layers} layers, "${model.name}" is ${model.modelType} with ${model.layers}`,
      );
    }
  }
  const letters = lettersOf(source, model, undefined, {});
  // Indexers that the checkpoint lacks may come back from the original: that is for applyPattern to say.
  const fault = checkPattern(letters, { ...model, shipped: "F".repeat(model.layers) }).find(
    ({ severity }) => severity === "error",
  );
  if (fault !== undefined) throw new InputError(`This pattern cannot be applied: ${fault.message}`);
  const origin = await originFindings(letters, source, model);
  const warnings = [...origin.map(({ message }) => message), ...(await configWarning(source, model))];
  return { source, pattern: parsePattern(letters), warnings };
}

/** Losses are of the checkpoint that was searched: another quantization or fine-tune of it loses something else. */
async function configWarning(source: PatternSource, { path, name }: ServedModel): Promise<string[]> {
  if (source.kind !== "file" || isPublished(source.file) || path === undefined) return [];
  const hash = hashBytes(await readText(path, `"${path}"`));
  if (hash === source.file.model.config_hash) return [];
  return [
    `the pattern was searched on "${source.file.model.name}", whose config.json differs from that of "${name}": its losses are of that checkpoint`,
  ];
}

function tell(report: AppliedReport, flags: ApplyFlags, terminal: Terminal): void {
  const { pattern, model, engineShape } = report;
  const record = {
    checkpoint: report.target,
    made_from: model.name,
    index_topk_pattern: pattern,
    layers: model.layers,
    full_layers: fullLayers(pattern),
    ...(engineShape && {
      engine_shape: { num_attention_heads: engineShape.heads, index_n_heads: engineShape.indexHeads },
    }),
    bytes: report.bytes,
    left_out_tensors: report.leftOutTensors,
    left_out_bytes: report.leftOutBytes,
    restored_tensors: report.restoredTensors,
    rewritten: report.rewritten,
    unchanged: report.unchanged,
    not_copied: report.notCopied,
  };
  const how = { copy: "copied", hardlink: "hard links", symlink: "symbolic links" }[flags.shards];
  terminal.answer(record, () =>
    formatFields([
      ["Checkpoint", report.target],
      ["Pattern", `${pattern}, ${fullLayers(pattern).length} of ${model.layers} Full`],
      [
        "Shape",
        engineShape &&
          `that of engines' kernels: ${engineShape.heads} heads, ${engineShape.indexHeads} index heads of 128`,
      ],
      ["Weights", formatBytes(report.bytes)],
      [
        "Left out",
        report.leftOutTensors > 0 && `${report.leftOutTensors} indexer tensors, ${formatBytes(report.leftOutBytes)}`,
      ],
      ["Taken back", report.restoredTensors > 0 && `${report.restoredTensors} indexer tensors`],
      ["Rewritten", report.rewritten.length > 0 && counted(report.rewritten.length, "weight file")],
      ["Unchanged", report.unchanged.length > 0 && `${counted(report.unchanged.length, "weight file")}, ${how}`],
      ["Not copied", report.notCopied.length > 0 && report.notCopied.join(", ")],
    ]),
  );
}
