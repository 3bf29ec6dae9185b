/** The options of `distill`, and what they mean together. */
import { UsageError } from "../../base/errors.ts";
import { placements } from "../../checkpoint/derived/derived-checkpoint.ts";
import { defaultRecipe, type Recipe } from "../../distill/recipe.ts";
import type { ModelDescription } from "../../graph/model-folder.ts";
import { targetWeights } from "../../graph/training/attention-target.ts";
import { stepStates } from "../../graph/training/distill-graph.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { mixOptions } from "../arguments/calibration-mix.ts";
import { choice, type Flags, group, option, required } from "../arguments/declared-option.ts";
import { choosePattern } from "../arguments/inputs.ts";
import { journalOptions, logMode } from "../arguments/journal-options.ts";
import { modelOptions } from "../arguments/opening.ts";
import {
  decimalNumber,
  deviceOptions,
  devicesOption,
  offsetOption,
  outputOptions,
  positiveNumber,
} from "../arguments/options.ts";

export const distillOptions = [
  ...modelOptions,
  ...group(
    "What is trained:",
    required("-p, --pattern <pattern>", "the pattern to train for, as other commands take it, or any"),
    offsetOption(),
    option("-o, --output <folder>", "the new checkpoint"),
    option("--dry-run", "say what it takes of disk, memory and time, and stop; MODEL may be a config.json"),
  ),
  ...mixOptions,
  ...group(
    "How it is trained:",
    option(
      "--holdout <share>",
      "share of the sequences that decides which step is best (default: 1/16, at most 4 batches)",
    ),
    option("--steps <n>", "steps of training, for each group of layers", positiveNumber, defaultRecipe.steps),
    option("--rate <x>", "highest learning rate", decimalNumber, defaultRecipe.rate),
    option("--batch <n>", "sequences of a step", positiveNumber, defaultRecipe.batch),
    choice(
      "--targets <what>",
      "attention of all layers served, or of the Full layer alone",
      ["centroid", "own"],
      defaultRecipe.targets,
    ),
    choice("--weight <how>", "keys by what their values contribute, or by attention alone", targetWeights, "values"),
  ),
  ...group(
    "Files and resuming:",
    option("--drop-shared-indexers", "leave out the indexers of Shared layers, as `pattern apply` does"),
    choice("--shards <how>", "how weight files that do not change get there", placements, "copy"),
    option("--work <folder>", "where hidden states and progress are kept (default: OUTPUT.work)"),
    choice(
      "--states <how>",
      "hidden states of every layer are kept, or those of a group's first layer and each step runs the group (default: stored on a CPU, computed on a GPU that holds a group)",
      stepStates,
    ),
    option("--in-memory", "keep hidden states in memory; cannot be resumed"),
    ...journalOptions("work folder"),
  ),
  ...deviceOptions,
  ...group("Where it computes:", devicesOption("several devices take a group of layers each")),
  ...outputOptions,
] as const;

export type DistillFlags = Flags<typeof distillOptions>;

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
