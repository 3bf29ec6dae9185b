/**
 * Needles in a haystack after RULER: sentences that give a key its special magic value, hidden in text, and a question
 * for some of the keys. The templates are RULER's (Apache-2.0, NVIDIA); words, haystacks and numbers are our own.
 */
import type { Random } from "../../../src/base/random.ts";
import {
  joinWithAnd,
  makeNeedlePart,
  type Needle,
  type NeedleType,
  needleSentence,
  niahPrompt,
  niahTemplate,
  noiseLine,
} from "../../../src/eval/ruler/templates.ts";
import { Draft } from "./draft.ts";
import { makeSentences } from "./filler.ts";
import type { Task } from "./task.ts";
import { adjectives, things } from "./words.ts";

export type Haystack = "essay" | "noise" | "needle";

export interface NiahOptions {
  haystack: Haystack;
  /** Haystack units: sentences of an essay, noise lines or distractor needles. */
  units: number;
  /** Keys that have needles, at least `queries`. Default 1. */
  keys?: number;
  /** Values of each key. Default 1. */
  values?: number;
  /** Keys that are asked for. Default 1. */
  queries?: number;
  keyType?: NeedleType;
  valueType?: NeedleType;
  /** Where the needle of the first asked key stands: 0 before the haystack, 1 behind it. Default: anywhere. */
  depth?: number;
}

/** The task with what a test or a report by depth wants to know. */
export interface NiahTask extends Task {
  /** All needles that are no distractors. */
  needles: Needle[];
  /** The keys asked for, in order. */
  queries: string[];
}

/** A word of the corpus: an adjective and a thing. */
function makeWord(random: Random): string {
  return `${random.pick(adjectives)}-${random.pick(things)}`;
}

const makePart = (random: Random, type: NeedleType): string => makeNeedlePart(random, type, makeWord);

/** Distinct keys; a key never occurs twice in a task, so that every question has one answer. */
function makeKeys(random: Random, type: NeedleType, count: number): string[] {
  const keys = new Set<string>();
  while (keys.size < count) keys.add(makePart(random, type));
  return [...keys];
}

/** Puts the needles into the haystack and returns the context. */
function makeContext(
  random: Random,
  options: NiahOptions,
  needles: readonly Needle[],
  taken: ReadonlySet<string>,
): string {
  const { haystack, units, keyType = "words", valueType = "numbers", depth } = options;
  let hay: string[];
  if (haystack === "essay") hay = makeSentences(random, units);
  else if (haystack === "noise") hay = Array.from({ length: units }, () => noiseLine);
  else {
    hay = Array.from({ length: units }, () => {
      let key = makePart(random, keyType);
      while (taken.has(key)) key = makePart(random, keyType);
      return needleSentence(valueType, { key, value: makePart(random, valueType) });
    });
  }
  const placed = needles.map((needle, i) => ({
    sentence: needleSentence(valueType, needle),
    at: depth !== undefined && i === 0 ? Math.floor(depth * units) : random.integer(0, units),
  }));
  const lines: string[] = [];
  for (let i = 0; i <= units; i++) {
    for (const { sentence, at } of placed) if (at === i) lines.push(sentence);
    const unit = hay[i];
    if (unit !== undefined) lines.push(unit);
  }
  return lines.join(haystack === "essay" ? " " : "\n");
}

interface Hidden {
  keys: string[];
  needles: Needle[];
  context: string;
}

function hideNeedles(random: Random, options: NiahOptions, count: number): Hidden {
  const { keyType = "words", valueType = "numbers", values = 1 } = options;
  const keys = makeKeys(random, keyType, count);
  const needles = keys.flatMap((key) =>
    Array.from({ length: values }, () => ({ key, value: makePart(random, valueType) })),
  );
  return { keys, needles, context: makeContext(random, options, needles, new Set(keys)) };
}

/** One RULER niah task. The first key is always among those asked for, so that `depth` means what it says. */
export function makeNiah(random: Random, options: NiahOptions): NiahTask {
  const { valueType = "numbers", values = 1, queries: asked = 1 } = options;
  const { keys, needles, context } = hideNeedles(random, options, Math.max(options.keys ?? 1, asked));
  const queries = keys.slice(0, asked);
  return {
    ...niahPrompt(valueType, joinWithAnd(queries), context, asked * values === 1),
    outputs: queries.flatMap((key) => needles.filter((needle) => needle.key === key).map(({ value }) => value)),
    needles,
    queries,
  };
}

/**
 * A training document: one context, several needles, and one question after another. A model learns to look things up
 * several times from each such text, where a RULER task teaches it once.
 */
export function draftNiahQuiz(random: Random, options: NiahOptions & { questions: number }): Draft {
  const { valueType = "numbers" } = options;
  const { keys, needles, context } = hideNeedles(random, options, options.keys ?? 1);
  const [opening] = niahTemplate(valueType, "", false);
  const draft = new Draft().add(opening + context);
  for (let i = 0; i < options.questions; i++) {
    const key = random.pick(keys);
    const found = needles.filter((needle) => needle.key === key).map(({ value }) => value);
    const [, question, prefix] = niahTemplate(valueType, key, found.length === 1);
    draft.add(question + prefix).answer(` ${joinWithAnd(found)}.`);
  }
  return draft;
}
