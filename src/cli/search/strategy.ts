/** `--strategy` and the options that belong to it. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { UsageError } from "../../base/errors.ts";
import type { Direction } from "../../search/space.ts";
import { type Strategy, type StrategyName, strategyNames } from "../../search/strategy.ts";
import { decimalNumber, layerCount, repeatCount } from "../arguments/options.ts";

export type Objective = "nll" | "kl";

export interface StrategyFlags {
  strategy: StrategyName;
  objective: Objective;
  seed: number;
  beamWidth?: number;
  direction?: Direction;
  blocks?: number;
  swaps?: "single" | "pairs" | true;
  race?: boolean;
  alpha?: number;
}

const DEFAULT_WIDTH = 2;
const DEFAULT_BLOCKS = 4;
const DEFAULT_ALPHA = 0.1;
/** Sequences that a round of a race adds. */
const RACE_BLOCK = 2;

export function addStrategyOptions(command: Command): Command {
  return command
    .addOption(new Option("--strategy <name>", "which patterns are tried").choices(strategyNames).default("look-again"))
    .addOption(
      new Option(
        "--objective <name>",
        "what is minimised: nll, the LM loss, or kl, the KL divergence from the model's own pattern",
      )
        .choices(["nll", "kl"])
        .default("nll"),
    )
    .option("--beam-width <n>", `patterns of each size that beam follows (default: ${DEFAULT_WIDTH})`, repeatCount)
    .addOption(
      new Option(
        "--direction <name>",
        "whether beam takes indexers away or gives them back (default: backward)",
      ).choices(["backward", "forward"]),
    )
    .option(
      "--blocks <n>",
      `equal blocks of layers that blockwise goes through (default: ${DEFAULT_BLOCKS})`,
      layerCount,
    )
    .addOption(
      new Option(
        "--swaps [kind]",
        "refine the results: exchange a Full and a Shared layer (single), or also two for two (pairs), as long as that helps",
      ).choices(["single", "pairs"]),
    )
    .option("--race", "judge candidates by as few sequences as a paired test needs; not exact")
    .option("--alpha <p>", `error rate of one test of a race (default: ${DEFAULT_ALPHA})`, probability);
}

/** @throws UsageError for options that do not go together */
export function strategyOf(flags: StrategyFlags): Strategy {
  const { strategy: name, objective, beamWidth, direction, blocks, swaps, race, alpha, seed } = flags;
  const foreign = [
    ["--beam-width", beamWidth, "beam"],
    ["--direction", direction, "beam"],
    ["--blocks", blocks, "blockwise"],
  ].find(([, value, owner]) => value !== undefined && owner !== name);
  if (foreign !== undefined) {
    throw new UsageError(`${foreign[0]} is an option of --strategy ${foreign[2]}, not of --strategy ${name}`);
  }
  if (alpha !== undefined && race !== true) throw new UsageError("--alpha is an option of --race");
  if (name === "exhaustive" && swaps !== undefined) {
    throw new UsageError("--swaps has nothing to refine behind --strategy exhaustive, which tries every pattern");
  }
  const common = {
    ...(swaps === undefined ? {} : { swaps: swaps === "pairs" ? { pairs: true } : {} }),
    ...(race === true ? { race: { alpha: alpha ?? DEFAULT_ALPHA, block: RACE_BLOCK, seed } } : {}),
    ...(objective === "kl" ? { bounded: true } : {}),
  };
  switch (name) {
    case "beam":
      return { name, width: beamWidth ?? DEFAULT_WIDTH, direction: direction ?? "backward", ...common };
    case "blockwise":
      return { name, blocks: blocks ?? DEFAULT_BLOCKS, ...common };
    default:
      return { name, ...common };
  }
}

/** What files say of a strategy's settings; those that are at rest are left out. */
export function strategySettings(strategy: Strategy): Record<string, string | number | boolean> {
  return {
    ...(strategy.name === "beam" ? { beam_width: strategy.width, direction: strategy.direction } : {}),
    ...(strategy.name === "blockwise" ? { blocks: strategy.blocks } : {}),
    ...(strategy.swaps === undefined ? {} : { swaps: strategy.swaps.pairs === true ? "pairs" : "single" }),
    ...(strategy.race === undefined
      ? {}
      : { race_alpha: strategy.race.alpha, race_block: strategy.race.block, race_seed: strategy.race.seed }),
  };
}

function probability(text: string): number {
  const value = decimalNumber(text);
  if (!(value > 0 && value < 0.5)) throw new InvalidArgumentError("It must lie between 0 and 0.5.");
  return value;
}
