/** Needles in a haystack: keys with their special magic values, hidden in text, noise or other needles. */
import { Random } from "../../base/random.ts";
import { different, type GeneratorSettings, lineSteps, type SampleGenerator } from "../generated/generator.ts";
import type { Essays } from "./essays.ts";
import type { NiahParameters } from "./tasks.ts";
import {
  joinWithAnd,
  makeNeedlePart,
  type Needle,
  type NeedleType,
  needleSentence,
  niahPrompt,
  noiseLine,
} from "./templates.ts";
import { adjectives, nouns } from "./wonderwords.ts";

export interface NiahSettings extends Omit<NiahParameters, "haystack"> {
  haystack: "noise" | "needle" | Essays;
}

/** RULER's 40 depths in percent: linspace(0, 100, 40), rounded half to even. */
export const depths: readonly number[] = Array.from({ length: 40 }, (_, i) => Math.round((i * 100) / 39));

/** An adjective and a noun, drawn independently: the distribution of RULER's list of all 6.2 million pairs. */
function makeWord(random: Random): string {
  return `${random.pick(adjectives)}-${random.pick(nouns)}`;
}

export function niahGenerator(settings: NiahSettings, { seed, length }: GeneratorSettings): SampleGenerator {
  const { haystack, keyType, valueType, keys: keyCount, values: valueCount, queries: asked } = settings;
  const part = (random: Random, type: NeedleType): string => makeNeedlePart(random, type, makeWord);
  const needleCount = keyCount * valueCount;

  /** A key of a needle that is asked for never occurs twice, so that every question has one answer. */
  const makeOtherKey = (random: Random, taken: ReadonlySet<string>): string => {
    let key = part(random, keyType);
    while (taken.has(key)) key = part(random, keyType);
    return key;
  };

  const makeContext = (
    random: Random,
    needles: readonly Needle[],
    taken: ReadonlySet<string>,
    units: number,
  ): string => {
    // RULER shuffles the needles with a generator of its own: the same order in every sample.
    const sentences = Random.forPart(seed, "needles").shuffled(
      needles.map((needle) => needleSentence(valueType, needle)),
    );
    if (typeof haystack === "object") return haystack.hide(sentences, random.sample(depths, needleCount), units);
    const lines =
      haystack === "noise"
        ? new Array<string>(units).fill(noiseLine)
        : Array.from({ length: units }, () =>
            needleSentence(valueType, { key: makeOtherKey(random, taken), value: part(random, valueType) }),
          );
    return insertAt(lines, sentences, distinct(random, units, needleCount));
  };

  return {
    smallest: typeof haystack === "object" ? 1 : needleCount,
    officialSteps:
      typeof haystack === "object" ? { kind: "halving", step: 500, probe: 500, reach: 3 } : lineSteps(length, 25),
    make(random, units) {
      const keys = different(keyCount, () => part(random, keyType));
      const needles = keys.flatMap((key) =>
        Array.from({ length: valueCount }, () => ({ key, value: part(random, valueType) })),
      );
      const context = makeContext(random, needles, new Set(keys), units);
      const queries = random.sample(keys, asked);
      const outputs = queries.flatMap((query) => needles.filter(({ key }) => key === query).map(({ value }) => value));
      const prompt = niahPrompt(valueType, joinWithAnd(queries), context, outputs.length === 1);
      return { ...prompt, outputs, answerAt: prompt.input.indexOf(outputs[0] ?? "") };
    },
  };
}

/** `count` distinct integers below `end`, ascending, without a list of all of them. */
export function distinct(random: Random, end: number, count: number): number[] {
  return different(Math.min(count, end), () => random.integer(0, end - 1)).sort((a, b) => a - b);
}

/**
 * Joins lines with sentences before the lines of the given indices. As in RULER, the first sentence goes to the highest
 * index.
 */
function insertAt(lines: readonly string[], sentences: readonly string[], indices: readonly number[]): string {
  const pieces: string[] = [];
  let from = 0;
  for (const [i, index] of indices.entries()) {
    const sentence = sentences[indices.length - 1 - i];
    for (; from < index; from++) pieces.push(lines[from] ?? "");
    if (sentence !== undefined) pieces.push(sentence);
  }
  for (; from < lines.length; from++) pieces.push(lines[from] ?? "");
  return pieces.join("\n");
}
