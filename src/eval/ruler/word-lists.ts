/** The most common words of a numbered list (cwe), and of a coded text whose frequencies fall as a zeta law (fwe). */
import { Random } from "../../base/random.ts";
import { different, type GeneratorSettings, type SampleGenerator } from "../generated/generator.ts";
import { commonWordsPrompt, frequentWordsPrompt, numberedWords } from "./templates.ts";
import { adjectives, nouns, verbs } from "./wonderwords.ts";

const COMMON = 10;

/** How many words a list has, and how often the common and the other ones occur in it. */
interface ListShape {
  words: number;
  common: number;
  others: number;
}

interface ListRules {
  example?: ListShape;
  common: number;
  others: number;
  simplified?: string;
}

/** RULER's rules for a length, and easier ones for lengths in which they do not fit. */
function rulesFor(length: number): ListRules[] {
  const short = { example: { words: 20, common: 3, others: 1 }, common: 6, others: 1 };
  const long = { example: { words: 40, common: 10, others: 3 }, common: 30, others: 3 };
  return [
    ...(length < 4096 ? [short] : [long, { ...short, simplified: "follows RULER's rules for less than 4096 tokens" }]),
    { common: 6, others: 1, simplified: "has no solved example" },
    { common: 3, others: 1, simplified: "has no solved example and its common words occur 3 times" },
  ];
}

/** @param beyond words for lists that need more than the pool has, as RULER takes them from english_words.json */
export function commonWordsGenerators(
  { length, seed }: GeneratorSettings,
  beyond: readonly string[] = [],
): SampleGenerator[] {
  const sorted = [...new Set([...nouns, ...adjectives, ...verbs])].sort();
  const pool = Random.forPart(seed, "cwe/pool").shuffled(sorted);
  return rulesFor(length).map((rules) => commonWordsGenerator(rules, pool, beyond, seed));
}

function commonWordsGenerator(
  { example, simplified, ...main }: ListRules,
  pool: readonly string[],
  beyond: readonly string[],
  seed: number,
): SampleGenerator {
  const makeList = (random: Random, shape: ListShape) => {
    const words = sampleWords(random, shape.words > pool.length && beyond.length > 0 ? beyond : pool, shape.words);
    const repeated = words.flatMap((word, i) => new Array<string>(i < COMMON ? shape.common : shape.others).fill(word));
    // The same order in every sample, as in RULER.
    const context = numberedWords(Random.forPart(seed, "cwe/order").shuffled(repeated));
    const outputs = words.slice(0, COMMON);
    return { ...commonWordsPrompt(context), outputs };
  };

  return {
    smallest: COMMON + 1,
    largest: Math.max(pool.length, beyond.length),
    largestNote:
      beyond.length > 0
        ? `the ${beyond.length} words of --english-words end there`
        : `its ${pool.length} words end there; RULER goes on with its english_words.json: give --english-words FILE`,
    officialSteps: { kind: "halving", step: 10, probe: 4096, reach: 2 },
    ...(simplified === undefined ? {} : { simplified }),
    make(random, units) {
      const solved = example === undefined ? undefined : makeList(random, example);
      const list = makeList(random, { words: units, ...main });
      if (solved === undefined) return list;
      const answer = numberedWords(solved.outputs);
      return { ...list, input: `${solved.input}${solved.answerPrefix} ${answer}\n${list.input}` };
    },
  };
}

/** `count` distinct words in random order: the head of a Fisher-Yates shuffle. */
function sampleWords(random: Random, pool: readonly string[], count: number): string[] {
  const moved = new Map<number, string>();
  return Array.from({ length: Math.min(count, pool.length) }, (_, i) => {
    const j = random.integer(i, pool.length - 1);
    const word = moved.get(j) ?? pool[j] ?? "";
    moved.set(j, moved.get(i) ?? pool[i] ?? "");
    return word;
  });
}

/** ζ(2), the sum of the law of RULER's alpha. */
const ZETA_2 = Math.PI ** 2 / 6;
const LETTERS = [..."abcdefghijklmnopqrstuvwxyz"];
const CODED_LENGTH = 6;
/** Fewer words give the third answer no count of its own. */
const FEWEST_WORDS = 27;

/** How often the word of each rank occurs among about `words`: floor(words · rank^-2 / ζ(2)). */
export function zetaCounts(words: number, ranks: number): number[] {
  return Array.from({ length: ranks }, (_, i) => Math.floor((words * (i + 1) ** -2) / ZETA_2));
}

/** @param budget tokens for the prompt alone: the length without wrapper and answer */
export function frequentWordsGenerator({ seed }: GeneratorSettings, budget: number): SampleGenerator {
  const vocabulary = Math.max(5, Math.floor(budget / 50));
  return {
    smallest: FEWEST_WORDS,
    officialSteps: { kind: "climbing" },
    make(random, units) {
      const coded = different(vocabulary, () =>
        Array.from({ length: CODED_LENGTH }, () => random.pick(LETTERS)).join(""),
      );
      const words = Random.forPart(seed, "fwe/vocabulary").shuffled(coded.sort());
      words[0] = "...";
      const counts = zetaCounts(unambiguous(units), vocabulary);
      const repeated = words.flatMap((word, i) => new Array<string>(counts[i] ?? 0).fill(word));
      const context = Random.forPart(seed, "fwe/order").shuffled(repeated).join(" ");
      const outputs = words.slice(1, 4);
      return { ...frequentWordsPrompt(context), outputs };
    },
  };
}

/** Below some hundred words ranks 4 and 5 may tie, and the third answer would be anyone's guess: fewer words then. */
function unambiguous(words: number): number {
  for (let fewer = words; fewer > FEWEST_WORDS; fewer--) {
    const [, , , fourth = 0, fifth = 0] = zetaCounts(fewer, 5);
    if (fourth > fifth) return fewer;
  }
  return FEWEST_WORDS;
}
