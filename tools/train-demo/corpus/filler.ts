/** Text to hide things in: sentences that nobody will be asked about. */
import type { Random } from "../../../src/base/random.ts";
import {
  actions,
  adjectives,
  animals,
  colours,
  days,
  foods,
  months,
  people,
  places,
  things,
  towns,
  trades,
} from "./words.ts";

type SentenceMaker = (random: Random) => string;

const upper = (word: string): string => word.slice(0, 1).toUpperCase() + word.slice(1);

/** "an amber", "a blue". */
export function withArticle(phrase: string): string {
  return /^[aeiou]/.test(phrase) ? `an ${phrase}` : `a ${phrase}`;
}

const makers: readonly SentenceMaker[] = [
  (r) => `The ${r.pick(adjectives)} ${r.pick(things)} stood near the ${r.pick(places)}.`,
  (r) =>
    `On ${r.pick(days)} the ${r.pick(trades)} ${r.pick(actions)} ${withArticle(r.pick(adjectives))} ${r.pick(things)}.`,
  (r) => `People in ${r.pick(towns)} like ${r.pick(foods)} and ${r.pick(foods)}.`,
  (r) => `There was ${withArticle(r.pick(animals))} behind the ${r.pick(places)}, and it was ${r.pick(adjectives)}.`,
  (r) => `In ${r.pick(months)} the road from ${r.pick(towns)} to ${r.pick(towns)} is ${r.pick(adjectives)}.`,
  (r) => `Nobody knew why the ${r.pick(colours)} ${r.pick(things)} was so ${r.pick(adjectives)}.`,
  (r) => `A ${r.pick(trades)} from ${r.pick(towns)} ${r.pick(actions)} the ${r.pick(things)} again.`,
  (r) => `The ${r.pick(animals)} slept while the ${r.pick(animals)} watched the ${r.pick(places)}.`,
  (r) => `It rained on the ${r.pick(places)} until ${r.pick(days)}.`,
  (r) => `${r.pick(people)} and ${r.pick(people)} walked to the ${r.pick(places)} with ${withArticle(r.pick(things))}.`,
  (r) => `Every ${r.pick(trades)} needs ${withArticle(r.pick(adjectives))} ${r.pick(things)}.`,
  (r) => `The price of ${r.pick(foods)} was ${r.integer(2, 99)} coins that week.`,
  (r) => `${upper(r.pick(foods))} and ${r.pick(foods)} were sold at the ${r.pick(places)}.`,
  (r) => `She ${r.pick(actions)} the ${r.pick(things)}, and he ${r.pick(actions)} the ${r.pick(things)}.`,
  (r) => `Some say the ${r.pick(places)} is ${r.pick(adjectives)}, others say it is ${r.pick(adjectives)}.`,
  (r) => `They painted the ${r.pick(things)} ${r.pick(colours)} and the ${r.pick(things)} ${r.pick(colours)}.`,
];

/** One sentence that no question asks about. */
export function makeSentence(random: Random): string {
  return random.pick(makers)(random);
}

/** `count` such sentences. */
export function makeSentences(random: Random, count: number): string[] {
  return Array.from({ length: count }, () => makeSentence(random));
}
