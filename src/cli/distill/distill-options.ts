/** The options of `distill`, and what they mean together. */
import { type Command, Option } from "commander";
import { UsageError } from "../../base/errors.ts";
import { type Placement, placements } from "../../checkpoint/derived/derived-checkpoint.ts";
import { defaultRecipe, type Recipe } from "../../distill/recipe.ts";
import type { ModelDescription } from "../../graph/model-folder.ts";
import { type TargetWeight, targetWeights } from "../../graph/training/attention-target.ts";
import { type StepStates, stepStates } from "../../graph/training/distill-graph.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { addMixOptions, type MixFlags } from "../arguments/calibration-mix.ts";
import { choosePattern } from "../arguments/inputs.ts";
import { addJournalOptions, type JournalFlags, logMode } from "../arguments/journal-options.ts";
import { addModelToRun, type VerifyFlags } from "../arguments/opening.ts";
import {
  addDeviceOptions,
  addOutputOptions,
  type DeviceFlags,
  decimalNumber,
  devicesOption,
  type OutputFlags,
  positiveNumber,
  type WorkerFlags,
  wholeNumber,
} from "../arguments/options.ts";

export interface DistillFlags extends VerifyFlags, MixFlags, DeviceFlags, WorkerFlags, JournalFlags, OutputFlags {
  pattern: string;
  offset: number;
  output?: string;
  targets: Recipe["targets"];
  weight: TargetWeight;
  steps: number;
  rate: number;
  batch: number;
  holdout?: string;
  work?: string;
  dryRun?: boolean;
  dropSharedIndexers?: boolean;
  shards: Placement;
  inMemory?: boolean;
  states?: StepStates;
}

export function addDistillOptions(command: Command): void {
  addModelToRun(command);
  command
    .optionsGroup("What is trained:")
    .requiredOption("-p, --pattern <pattern>", "the pattern to train for, as other commands take it, or any")
    .option("--offset <n>", "index_skip_topk_offset of freq:N", wholeNumber, 2)
    .option("-o, --output <folder>", "the new checkpoint")
    .option("--dry-run", "say what it takes of disk, memory and time, and stop; MODEL may be a config.json");
  addMixOptions(command);
  command
    .optionsGroup("How it is trained:")
    .option(
      "--holdout <share>",
      "share of the sequences that decides which step is best (default: 1/16, at most 4 batches)",
    )
    .option("--steps <n>", "steps of training, for each group of layers", positiveNumber, defaultRecipe.steps)
    .option("--rate <x>", "highest learning rate", decimalNumber, defaultRecipe.rate)
    .option("--batch <n>", "sequences of a step", positiveNumber, defaultRecipe.batch)
    .addOption(
      new Option("--targets <what>", "attention of all layers served, or of the Full layer alone")
        .choices(["centroid", "own"])
        .default(defaultRecipe.targets),
    )
    .addOption(
      new Option("--weight <how>", "keys by what their values contribute, or by attention alone")
        .choices(targetWeights)
        .default("values"),
    )
    .optionsGroup("Files and resuming:")
    .option("--drop-shared-indexers", "leave out the indexers of Shared layers, as `pattern apply` does")
    .addOption(
      new Option("--shards <how>", "how weight files that do not change get there").choices(placements).default("copy"),
    )
    .option("--work <folder>", "where hidden states and progress are kept (default: OUTPUT.work)")
    .addOption(
      new Option(
        "--states <how>",
        "hidden states of every layer are kept, or those of a group's first layer and each step runs the group (default: stored on a CPU, computed on a GPU that holds a group)",
      ).choices(stepStates),
    )
    .option("--in-memory", "keep hidden states in memory; cannot be resumed");
  addJournalOptions(command, "work folder");
  addDeviceOptions(command);
  command.addOption(devicesOption("several devices take a group of layers each"));
  addOutputOptions(command);
}

/** Flags that contradict each other, before anything is read. */
export function requireSensibleDistillFlags(flags: DistillFlags): void {
  if (flags.inMemory === true && (flags.resume === true || flags.work !== undefined)) {
    throw new UsageError("--in-memory keeps nothing on disk: it cannot be combined with --resume or --work");
  }
  logMode(flags);
  if (flags.dropSharedIndexers === true && flags.pattern === "any") {
    throw new UsageError("--drop-shared-indexers needs a pattern: with --pattern any every indexer may be needed");
  }
}

export function recipeOf({ steps, rate, batch, targets, seed }: DistillFlags): Recipe {
  if (!(rate > 0)) throw new UsageError(`--rate is ${rate}: it must be greater than 0`);
  return { ...defaultRecipe, steps, rate, batch, targets, seed };
}

/** The pattern to train for. */
export async function trainedPattern(model: ModelDescription, flags: DistillFlags): Promise<Pattern | "any"> {
  return flags.pattern === "any" ? "any" : await choosePattern(model, flags);
}
