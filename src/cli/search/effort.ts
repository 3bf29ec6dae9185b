/** `--effort`: three presets of `search`. What they find and take: docs/search.md, by `tools/landscape/compare.js effort`. */
import type { Command } from "commander";
import { choice } from "../arguments/declared-option.ts";

/** Options that a preset sets, by the names of their values. */
type Preset = Readonly<Record<string, string | number | boolean>>;

export const efforts = {
  quick: { strategy: "greedy", race: true },
  standard: { strategy: "refine" },
  thorough: { strategy: "refine", budget: 6 },
} as const satisfies Record<string, Preset>;

type EffortName = keyof typeof efforts;

const names = Object.keys(efforts) as EffortName[];

export const effortOption = choice(
  "--effort <name>",
  `a preset, whose options can be given as well: ${names.map((name) => `${name} (${wordsOf(efforts[name])})`).join(", ")}`,
  names,
);

/**
 * Sets what the preset says and nobody else does. A strategy that is given takes the preset's place: its other options
 * belong to its own strategy.
 * @returns what was set, as it would stand on the command line; undefined without --effort
 */
export function applyEffort(command: Command): string | undefined {
  const name = command.getOptionValue("effort") as EffortName | undefined;
  if (name === undefined) return undefined;
  const preset: Preset = efforts[name];
  const isGiven = (attribute: string): boolean =>
    !["default", undefined].includes(command.getOptionValueSource(attribute));
  if (isGiven("strategy") && command.getOptionValue("strategy") !== preset.strategy) return "";
  const free = Object.entries(preset).filter(([attribute]) => !isGiven(attribute));
  for (const [attribute, value] of free) command.setOptionValueWithSource(attribute, value, "implied");
  return wordsOf(Object.fromEntries(free));
}

function wordsOf(preset: Preset): string {
  return Object.entries(preset)
    .map(([name, value]) => (value === true ? `--${name}` : `--${name} ${value}`))
    .join(" ");
}
