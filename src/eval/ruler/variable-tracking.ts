/** Variable tracking: one chain of assignments in noise, after a solved example. */
import { Random } from "../../base/random.ts";
import {
  different,
  type GeneratedSample,
  type GeneratorSettings,
  lineSteps,
  type SampleGenerator,
} from "../generated/generator.ts";
import { distinct } from "./niah.ts";
import { noiseLine, variableTrackingPrompt } from "./templates.ts";

const HOPS = 4;
const NAMES = HOPS + 1;
const EXAMPLE_TOKENS = 500;
const EXAMPLE_VALUE = "12345";
/** RULER's step for the example's size. */
const EXAMPLE_UNITS = 5;

const letters = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"];

interface Chain extends GeneratedSample {
  value: string;
}

/**
 * RULER's task, and the same without its solved example for lengths in which that does not fit.
 * @param countTokens sizes the example, which is the same for all samples but for its names and value
 */
export function variableTrackingGenerators(
  { length, seed }: GeneratorSettings,
  countTokens: (text: string) => number,
): SampleGenerator[] {
  const solved = makeExample(Random.forPart(seed, `vt/${length}/example`), countTokens);
  const make: SampleGenerator["make"] = (random, units) => {
    const { value: _, ...chain } = makeChain(random, units, 5, String(random.integer(10_000, 99_998)));
    return chain;
  };
  const officialSteps = lineSteps(length, 10);
  return [
    {
      smallest: NAMES,
      officialSteps,
      make(random, units, index) {
        const sample = make(random, units, index);
        return { ...sample, input: `${renamed(solved, random)}\n${sample.input}` };
      },
    },
    { smallest: NAMES, officialSteps, make, simplified: "has no solved example" },
  ];
}

function makeChain(random: Random, units: number, nameLength: number, value: string): Chain {
  const names = different(NAMES, () => makeName(random, nameLength));
  const lines = new Array<string>(units).fill(noiseLine);
  for (const [i, index] of distinct(random, units, NAMES).entries()) {
    const line = i === 0 ? `VAR ${names[0]} = ${value}` : `VAR ${names[i]} = VAR ${names[i - 1]} `;
    lines.splice(index + i, 0, line);
  }
  const context = lines.join("\n").replaceAll(". \n", ".\n");
  return { ...variableTrackingPrompt(context, value, NAMES), outputs: names, value };
}

/** A name of which no part reads as the keyword. */
function makeName(random: Random, length: number): string {
  for (;;) {
    const name = Array.from({ length }, () => random.pick(letters)).join("");
    if (!name.includes("VAR")) return name;
  }
}

interface SolvedExample {
  text: string;
  names: readonly string[];
}

/** The largest example of up to 500 tokens, as RULER's search finds it; of 5 noise lines where even those have more. */
function makeExample(random: Random, countTokens: (text: string) => number): SolvedExample {
  const make = (units: number): SolvedExample => {
    const { input, answerPrefix, outputs } = makeChain(random, units, 3, EXAMPLE_VALUE);
    return { text: `${input}${answerPrefix} ${outputs.join(" ")}\n`, names: outputs };
  };
  let best = make(EXAMPLE_UNITS);
  for (let units = EXAMPLE_UNITS + 1; ; units++) {
    const next = make(units);
    if (countTokens(next.text) > EXAMPLE_TOKENS) return best;
    best = next;
  }
}

/** The example with fresh names and value, so that it gives nothing away. */
function renamed({ text, names }: SolvedExample, random: Random): string {
  const fresh = different(names.length, () => makeName(random, 3));
  const replacement = new Map(names.map((name, i) => [name, fresh[i] ?? name]));
  replacement.set(EXAMPLE_VALUE, String(random.integer(10_000, 99_998)));
  const pattern = new RegExp(`\\b(?:${[...replacement.keys()].join("|")})\\b`, "g");
  return text.replace(pattern, (found) => replacement.get(found) ?? found);
}
