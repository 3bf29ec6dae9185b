/** `--strategy` and the options that belong to it. */

import { InvalidArgumentError, type Option } from "commander";
import { UsageError } from "../../base/errors.ts";
import { withoutUndefined } from "../../base/without-undefined.ts";
import { currentStrategyName, isRemovedStrategy } from "../../formats/strategy-names.ts";
import { strategies } from "../../search/strategies/strategies.ts";
import { type SearchMethod, strategySettings } from "../../search/strategy.ts";
import { objectiveOption } from "../arguments/calibration-mix.ts";
import { choice, type Flags, group, option, suggest } from "../arguments/declared-option.ts";
import { decimalNumber, layerCount } from "../arguments/options.ts";

const DEFAULT_ALPHA = 0.1;
/** Sequences that a round of a race adds. */
const RACE_BLOCK = 2;

const optionsOfStrategies = strategies.flatMap((strategy) =>
  (strategy.options ?? []).map((option) => ({ ...option, strategy })),
);

/** A line for each strategy, for help. */
export function strategyLines(): string[] {
  const width = Math.max(...strategies.map(({ name }) => name.length));
  return strategies.map(({ name, summary }) => `${name.padEnd(width)}  ${summary}`);
}

const names = strategies.map(({ name }) => name);

export const strategyOptions = [
  ...group(
    "How it searches:",
    suggest(
      option("--strategy <name>", `which patterns are tried: ${names.join(", ")}`, strategyName, strategies[0].name),
      names,
    ),
    objectiveOption(
      "what is minimised: nll, the LM loss; kl, the KL divergence from the model's own pattern; or answer, the loss of answers given their prompts",
      ["nll", "kl", "answer"],
    ),
    choice(
      "--across <how>",
      "how several -c count together: mean, by their weights; or worst, by the one on which a pattern loses most",
      ["mean", "worst"],
      "mean",
    ),
    ...optionsOfStrategies.map(
      ({ name, summary, initial }): Option => option(`--${name} <n>`, `${summary} (default: ${initial})`, layerCount),
    ),
    option("--race", "judge candidates by as few sequences as a paired test needs; not exact"),
    option("--alpha <p>", `error rate of one test of a race (default: ${DEFAULT_ALPHA})`, probability),
  ),
] as const;

export type StrategyFlags = Flags<typeof strategyOptions> & { seed: number };

/** Names of earlier versions pass; `methodOf` says what they are called now. */
function strategyName(text: string): string {
  if (names.includes(currentStrategyName(text))) return text;
  const choices = `Allowed choices are ${names.join(", ")}.`;
  throw new InvalidArgumentError(
    isRemovedStrategy(text)
      ? `This version no longer has it: no measurement favoured it over refine. ${choices}`
      : choices,
  );
}

/**
 * @param warn hears of a name that will go
 * @throws UsageError for options that do not go together
 */
export function methodOf(flags: StrategyFlags, warn: (message: string) => void): SearchMethod {
  const { objective, race, alpha, across, seed } = flags;
  const name = currentStrategyName(flags.strategy);
  if (name !== flags.strategy) warn(`--strategy ${flags.strategy} is called ${name} now; the old name will be dropped`);
  const strategy = strategies.find((one) => one.name === name) ?? strategies[0];
  const given = flags as unknown as Record<string, number | undefined>;
  const foreign = optionsOfStrategies.find((one) => given[one.name] !== undefined && one.strategy !== strategy);
  if (foreign !== undefined) {
    throw new UsageError(
      `--${foreign.name} is an option of --strategy ${foreign.strategy.name}, not of --strategy ${name}`,
    );
  }
  if (alpha !== undefined && race !== true) throw new UsageError("--alpha is an option of --race");
  const settings = (strategy.options ?? []).flatMap((option) => {
    const value = given[option.name];
    return value === undefined ? [] : [[option.name, value] as const];
  });
  return {
    strategy,
    settings: Object.fromEntries(settings),
    ...(race === true ? { race: { alpha: alpha ?? DEFAULT_ALPHA, block: RACE_BLOCK, seed } } : {}),
    ...(objective === "kl" ? { bounded: true } : {}),
    ...(across === "worst" ? { across } : {}),
  };
}

/** What files say of a method's settings; those that are at rest are left out. */
export function methodSettings(method: SearchMethod): Record<string, string | number | boolean> {
  const { race, across, strategy } = method;
  const quiet = (strategy.options ?? []).filter(({ isNamedIfSet }) => isNamedIfSet);
  const isAtRest = ([name, value]: [string, number]): boolean =>
    quiet.some((option) => option.name === name && option.initial === value);
  return {
    ...Object.fromEntries(Object.entries(strategySettings(method)).filter((setting) => !isAtRest(setting))),
    ...withoutUndefined({ across, race_alpha: race?.alpha, race_block: race?.block, race_seed: race?.seed }),
  };
}

function probability(text: string): number {
  const value = decimalNumber(text);
  if (!(value > 0 && value < 0.5)) throw new InvalidArgumentError("It must lie between 0 and 0.5.");
  return value;
}
