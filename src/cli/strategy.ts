/** `--strategy` and the options that belong to it. */
import { type Command, Option } from "commander";
import { UsageError } from "../base/errors.ts";
import type { Direction } from "../search/step.ts";
import { type Strategy, type StrategyName, strategyNames } from "../search/strategy.ts";
import { positiveNumber } from "./options.ts";

export interface StrategyFlags {
  strategy: StrategyName;
  beamWidth?: number;
  direction?: Direction;
  swaps?: boolean;
}

const DEFAULT_WIDTH = 2;

export function addStrategyOptions(command: Command): Command {
  return command
    .addOption(new Option("--strategy <name>", "which patterns are tried").choices(strategyNames).default("greedy"))
    .option("--beam-width <n>", `patterns of each size that beam follows (default: ${DEFAULT_WIDTH})`, positiveNumber)
    .addOption(
      new Option(
        "--direction <name>",
        "whether beam takes indexers away or gives them back (default: backward)",
      ).choices(["backward", "forward"]),
    )
    .option("--swaps", "refine the result: exchange a Full and a Shared layer as long as that helps");
}

/** @throws UsageError for options that do not go together */
export function strategyOf({ strategy: name, beamWidth, direction, swaps }: StrategyFlags): Strategy {
  if (name !== "beam") {
    const foreign = beamWidth !== undefined ? "--beam-width" : direction !== undefined ? "--direction" : undefined;
    if (foreign !== undefined)
      throw new UsageError(`${foreign} is an option of --strategy beam, not of --strategy ${name}`);
  }
  if (name === "exhaustive" && swaps === true) {
    throw new UsageError("--swaps has nothing to refine behind --strategy exhaustive, which tries every pattern");
  }
  const refinement = swaps === true ? { swaps: {} } : {};
  if (name !== "beam") return { name, ...refinement };
  return { name, width: beamWidth ?? DEFAULT_WIDTH, direction: direction ?? "backward", ...refinement };
}
