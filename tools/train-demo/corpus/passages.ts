/** Copying: passages that come back word for word, and tables whose cells are looked up. The purest retrieval there is. */
import type { Random } from "../../../src/base/random.ts";
import { Draft } from "./draft.ts";
import { makeSentences, withArticle } from "./filler.ts";
import { estimateTokens } from "./token-estimate.ts";
import { adjectives, animals, colours, foods, people, places, things, towns, trades } from "./words.ts";

const allWords: readonly string[] = [...adjectives, ...things, ...animals, ...colours, ...foods, ...places, ...trades];

/** A line that cannot be guessed: words, digits or capital letters at random. */
function makeRandomLine(random: Random): string {
  const length = random.integer(5, 16);
  const kind = random.integer(0, 2);
  if (kind === 0) return Array.from({ length }, () => random.pick(allWords)).join(" ");
  if (kind === 1) return Array.from({ length: Math.ceil(length / 3) }, () => random.integer(100, 99_999)).join(" ");
  const letter = () => String.fromCharCode(65 + random.integer(0, 25));
  return Array.from({ length: Math.ceil(length / 4) }, () =>
    Array.from({ length: random.integer(3, 6) }, letter).join(""),
  ).join(" ");
}

/** Numbered passages, then some of them again under their numbers, in any order. */
export function draftCopies(random: Random, tokens: number): Draft {
  const draft = new Draft().add("Read the numbered passages and copy those that are asked for.\n");
  const passages: string[] = [];
  let used = estimateTokens(draft.text);
  while (used < tokens * 0.55) {
    const passage =
      random.unit() < 0.35 ? makeSentences(random, random.integer(1, 2)).join(" ") : makeRandomLine(random);
    const line = `Passage ${passages.length + 1}: ${passage}\n`;
    used += estimateTokens(line);
    passages.push(passage);
    draft.add(line);
  }
  for (;;) {
    const i = random.integer(0, passages.length - 1);
    const opening = `Copy of passage ${i + 1}:`;
    const copy = ` ${passages[i]}\n`;
    used += estimateTokens(opening + copy);
    if (used > tokens) return draft;
    draft.add(opening).answer(copy);
  }
}

/** A stock list with counts, then questions for single lines. */
export function draftInventory(random: Random, tokens: number): Draft {
  const town = random.pick(towns);
  const draft = new Draft().add(`Stock of the ${random.pick(places)} in ${town}, kept by ${random.pick(people)}:\n`);
  const lines = Math.max(3, Math.floor((tokens * 0.6) / 10));
  const items = new Map<string, { count: string; place: string }>();
  while (items.size < lines) {
    const item = `${random.pick(adjectives)} ${random.pick(things)}`;
    if (items.has(item)) continue;
    const entry = { count: String(random.integer(10, 999)), place: random.pick(places) };
    items.set(item, entry);
    draft.add(`- ${item}: ${entry.count}, ${entry.place}\n`);
  }
  let used = estimateTokens(draft.text);
  const known = [...items];
  for (;;) {
    const [item, entry] = random.pick(known);
    const byCount = random.unit() < 0.5;
    const question = byCount
      ? `How many pieces of the ${item} are there? Answer:`
      : `Where is the ${item} kept? Answer: in the`;
    const answer = byCount ? ` ${entry.count}` : ` ${entry.place}`;
    used += estimateTokens(`${question}${answer}.\n`);
    if (used > tokens) return draft;
    draft.add(question).answer(answer).add(".\n");
  }
}

/** Letters that name a key and a value in many orders: short-range retrieval, from which the long-range one grows. */
export function draftPairs(random: Random, tokens: number): Draft {
  const draft = new Draft().add("Remember the pairs.\n");
  let used = estimateTokens(draft.text);
  const pairs = new Map<string, string>();
  const wanted = Math.max(2, Math.floor(tokens / 36));
  while (pairs.size < wanted) {
    const key = random.unit() < 0.5 ? random.pick(things) : `${random.pick(adjectives)}-${random.pick(things)}`;
    if (!pairs.has(key)) pairs.set(key, random.unit() < 0.5 ? random.pick(people) : String(random.integer(100, 9999)));
  }
  for (const [key, value] of pairs) {
    const line = random.unit() < 0.3 ? `The ${key} belongs with ${value}.\n` : `${key} -> ${value}\n`;
    used += estimateTokens(line);
    draft.add(line);
  }
  const known = [...pairs];
  for (;;) {
    const [key, value] = random.pick(known);
    const opening = random.unit() < 0.2 ? `Which one belongs with ${withArticle(key)}? Answer:` : `${key} ->`;
    used += estimateTokens(`${opening} ${value}\n`);
    if (used > tokens) return draft;
    draft.add(opening).answer(` ${value}`).add("\n");
  }
}
