/**
 * Variable tracking after RULER: chains of assignments (`VAR A = 12345`, `VAR B = VAR A `, ...) scattered in noise, and
 * the question which variables hold a value. The template is RULER's (Apache-2.0, NVIDIA). RULER asks with one chain;
 * more chains make sure that listing every variable of the text is no right answer.
 */
import type { Random } from "../../../src/base/random.ts";
import { noiseLine, variableTrackingPrompt } from "../../../src/eval/ruler/templates.ts";
import type { Task } from "./task.ts";

export interface VariableTrackingOptions {
  /** Noise lines. */
  units: number;
  /** Chains; the first is asked for. Default 1. */
  chains?: number;
  /** Assignments of a chain after its first, which give one name each. Default 4. */
  hops?: number;
  /** Letters of a name. Default 5. */
  letters?: number;
  /** Puts a solved example before the task, as RULER does. Default false: it costs a small model a fifth of its window. */
  example?: boolean;
}

export interface VariableTrackingTask extends Task {
  /** The value asked for. */
  value: string;
  /** Names of all chains, each in order of assignment. */
  chains: string[][];
}

const alphabet = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"];

function makeName(random: Random, letters: number): string {
  return Array.from({ length: letters }, () => random.pick(alphabet)).join("");
}

/** Names that differ from each other, and none of which reads as the keyword. */
function makeNames(random: Random, letters: number, count: number): string[] {
  const names = new Set<string>();
  while (names.size < count) {
    const name = makeName(random, letters);
    if (!name.includes("VAR")) names.add(name);
  }
  return [...names];
}

/** `count` distinct line numbers below `lines`, ascending. */
function makePositions(random: Random, lines: number, count: number): number[] {
  const places = Array.from({ length: lines }, (_, i) => i);
  return random.sample(places, count).sort((a, b) => a - b);
}

/** One task. `outputs` are the names of the first chain, in order of assignment. */
export function makeVariableTracking(random: Random, options: VariableTrackingOptions): VariableTrackingTask {
  const { units, chains: count = 1, hops = 4, letters = 5, example = false } = options;
  const perChain = hops + 1;
  const names = makeNames(random, letters, count * perChain);
  const values = new Set<string>();
  while (values.size < count) values.add(String(random.integer(10_000, 99_998)));
  const inserted: { at: number; line: string }[] = [];
  const chains: string[][] = [];
  for (const [c, value] of [...values].entries()) {
    const chain = names.slice(c * perChain, (c + 1) * perChain);
    const positions = makePositions(random, Math.max(units, perChain), perChain);
    chain.forEach((name, i) => {
      const line = i === 0 ? `VAR ${name} = ${value}` : `VAR ${name} = VAR ${chain[i - 1]} `;
      inserted.push({ at: positions[i] ?? 0, line });
    });
    chains.push(chain);
  }
  const lines: string[] = [];
  for (let i = 0; i < Math.max(units, perChain); i++) {
    for (const { at, line } of inserted) if (at === i) lines.push(line);
    if (i < units) lines.push(noiseLine);
  }
  const value = [...values][0] ?? "";
  const outputs = chains[0] ?? [];
  const solved = example ? makeExample(random, { hops, letters }) : "";
  const prompt = variableTrackingPrompt(lines.join("\n"), value, outputs.length);
  return {
    ...prompt,
    input: solved + prompt.input,
    outputs,
    value,
    chains,
  };
}

function makeExample(random: Random, options: { hops: number; letters: number }): string {
  const task = makeVariableTracking(random, { ...options, units: 1 });
  return `${task.input}${task.answerPrefix}${task.outputs.join(" ")}\n`;
}
