/**
 * The corpus: an endless, seeded stream of documents of several kinds. The demo model was trained on it, its calibration
 * set is drawn from it with another seed, and both can be made again byte for byte.
 */
import { Random } from "../../../src/base/random.ts";
import { numberedWords } from "../../../src/eval/ruler/templates.ts";
import { makeCommonWords, makeFrequentWords } from "./common-words.ts";
import { Draft } from "./draft.ts";
import { draftNiahQuiz, type Haystack, makeNiah } from "./niah.ts";
import { draftCopies, draftInventory, draftPairs } from "./passages.ts";
import { draftPrograms } from "./programs.ts";
import { draftStory } from "./prose.ts";
import type { Task } from "./task.ts";
import { makeVariableTracking } from "./variable-tracking.ts";

/** Changes whenever the same seed would give other bytes. */
export const corpusVersion = 1;

export type DocumentKind =
  | "story"
  | "needle"
  | "needles"
  | "chain"
  | "counts"
  | "copies"
  | "inventory"
  | "pairs"
  | "programs";

export interface CorpusDocument {
  kind: DocumentKind;
  text: string;
  /** Character ranges of what can be known from the text before it, end excluded. */
  answers: [start: number, end: number][];
}

/** Shares of the kinds; they need not add up to one. */
export type Mix = Readonly<Partial<Record<DocumentKind, number>>>;

/** What the demo model was trained on, by number of documents. */
export const trainingMix: Mix = {
  story: 0.16,
  needle: 0.16,
  needles: 0.16,
  chain: 0.22,
  counts: 0.03,
  copies: 0.08,
  inventory: 0.07,
  pairs: 0.06,
  programs: 0.06,
};

export interface CorpusOptions {
  seed: number;
  /** Estimated tokens of a document: a number, or bounds between which lengths are drawn evenly on a log scale. */
  tokens: number | readonly [shortest: number, longest: number];
  mix?: Mix;
}

const tokensPerNoiseLine = 22;

/** A task with its solution, as a document. */
function solved(task: Task, answer: string): Draft {
  return new Draft().add(task.input + task.answerPrefix).answer(answer);
}

/** Haystack units that fill `tokens` tokens. */
function unitsFor(haystack: Haystack, tokens: number): number {
  const perUnit = { essay: 10.9, noise: tokensPerNoiseLine + 1, needle: 23 }[haystack];
  return Math.max(1, Math.floor(tokens / perUnit));
}

function pickHaystack(random: Random): Haystack {
  return random.pick(["essay", "essay", "noise", "needle"] as const);
}

type Drafter = (random: Random, tokens: number) => Draft;

const drafters: Record<DocumentKind, Drafter> = {
  story: draftStory,
  needle: (random, tokens) => {
    const haystack = pickHaystack(random);
    const keys = haystack === "needle" || random.unit() < 0.5 ? 1 : random.integer(2, 4);
    const task = makeNiah(random, { haystack, keys, units: unitsFor(haystack, tokens - 66 - keys * 23) });
    return solved(task, ` ${task.outputs.join("")}.`);
  },
  needles: (random, tokens) => {
    const haystack = pickHaystack(random);
    const keys = Math.max(1, Math.min(6, Math.floor(tokens / 90)));
    const questions = Math.max(1, Math.min(7, Math.floor(tokens / 110)));
    const left = tokens - 31 - keys * 23 - questions * 40;
    return draftNiahQuiz(random, { haystack, keys, questions, units: unitsFor(haystack, left) });
  },
  chain: (random, tokens) => {
    const chains = tokens >= 250 && random.unit() < 0.35 ? 2 : 1;
    const hops = tokens < 200 ? random.integer(1, 3) : random.unit() < 0.7 ? 4 : random.integer(2, 4);
    const letters = random.unit() < 0.7 ? 5 : random.integer(3, 4);
    const example = tokens >= 700 && random.unit() < 0.15;
    const perChain = (hops + 1) * (2 * letters + 7);
    const fixed = 118 + perChain * chains + (hops + 1) * (letters + 1) + (example ? 75 + perChain * 1.6 : 0);
    const units = Math.max(1, Math.floor((tokens - fixed) / (tokensPerNoiseLine + 1)));
    const task = makeVariableTracking(random, { units, chains, hops, letters, example });
    return solved(task, `${task.outputs.join(" ")}`).add(".");
  },
  counts: (random, tokens) => {
    if (random.unit() < 0.75) {
      const common = random.integer(1, Math.max(1, Math.min(10, Math.floor(tokens / 90))));
      const others = Math.max(1, Math.min(150, Math.floor((tokens - 70 - common * 6 * 6) / 6)));
      const task = makeCommonWords(random, { common, others });
      return solved(task, ` ${numberedWords(task.outputs)}`);
    }
    const length = Math.max(30, Math.floor((tokens - 80) / 3));
    const task = makeFrequentWords(random, { length, vocabulary: Math.max(6, Math.floor(length / 12)) });
    return solved(task, ` ${task.outputs.join(", ")}.`);
  },
  copies: draftCopies,
  inventory: draftInventory,
  pairs: draftPairs,
  programs: draftPrograms,
};

/** One document of a kind, about `tokens` tokens long. */
export function makeDocument(random: Random, kind: DocumentKind, tokens: number): CorpusDocument {
  const draft = drafters[kind](random, tokens);
  return { kind, text: draft.text, answers: draft.answers };
}

function pickKind(random: Random, kinds: readonly [DocumentKind, number][]): DocumentKind {
  let left = random.unit() * kinds.reduce((sum, [, share]) => sum + share, 0);
  for (const [kind, share] of kinds) {
    left -= share;
    if (left < 0) return kind;
  }
  return kinds.at(-1)?.[0] ?? "story";
}

/**
 * Documents without end. Document `i` depends on the seed and on `i` alone, so that a part of the stream can be made
 * without the rest.
 */
export function* makeDocuments(options: CorpusOptions): Generator<CorpusDocument, never> {
  const { seed, tokens, mix = trainingMix } = options;
  const kinds = Object.entries(mix).filter(([, share]) => share > 0) as [DocumentKind, number][];
  for (let i = 0; ; i++) {
    const random = Random.forPart(seed, `document/${i}`);
    const kind = pickKind(random, kinds);
    const length =
      typeof tokens === "number" ? tokens : Math.round(tokens[0] * (tokens[1] / tokens[0]) ** random.unit());
    yield makeDocument(random, kind, length);
  }
}
