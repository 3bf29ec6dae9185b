/**
 * Stories about a few people: each person's facts are stated once, early, and come back later, so that a reader who can
 * look far back predicts more than one who cannot.
 */
import type { Random } from "../../../src/base/random.ts";
import { Draft } from "./draft.ts";
import { makeSentence, withArticle } from "./filler.ts";
import { estimateTokens } from "./token-estimate.ts";
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

/** What a story knows about a person. */
interface Person {
  name: string;
  trade: string;
  town: string;
  animal: string;
  pet: string;
  colour: string;
  food: string;
  thing: string;
  month: string;
}

type Teller = (random: Random, person: Person, draft: Draft) => void;

function makePeople(random: Random, count: number): Person[] {
  const names = random.sample(people, count * 2);
  const jobs = random.sample(trades, count);
  return Array.from({ length: count }, (_, i) => ({
    name: names[2 * i] ?? "",
    trade: jobs[i] ?? "",
    town: random.pick(towns),
    animal: random.pick(animals),
    pet: names[2 * i + 1] ?? "",
    colour: random.pick(colours),
    food: random.pick(foods),
    thing: `${random.pick(adjectives)} ${random.pick(things)}`,
    month: random.pick(months),
  }));
}

/** First mentions: every fact is news. */
const introductions: readonly Teller[] = [
  (_, p, d) => d.add(`${p.name} is a ${p.trade} in ${p.town} and was born in ${p.month}.`),
  (_, p, d) => d.add(`${p.name} has ${withArticle(p.animal)} called ${p.pet} and likes ${p.food}.`),
  (_, p, d) => d.add(`${p.name} always carries ${withArticle(p.thing)} and wears a ${p.colour} coat.`),
];

/** Later mentions: the part given to `answer` follows from the introductions. */
const recollections: readonly Teller[] = [
  (r, p, d) =>
    d
      .add(`On ${r.pick(days)} ${p.name}, the`)
      .answer(` ${p.trade}`)
      .add(` from`)
      .answer(` ${p.town}`)
      .add(`, came back.`),
  (r, p, d) =>
    d
      .add(`${p.name} went home to`)
      .answer(` ${p.town}`)
      .add(` and ${r.pick(actions)} ${withArticle(r.pick(things))}.`),
  (r, p, d) =>
    d
      .add(`At the ${r.pick(places)} ${p.name} ate some`)
      .answer(` ${p.food}`)
      .add(` and thought of`)
      .answer(` ${p.pet}`)
      .add(`.`),
  (_, p, d) => d.add(`${p.pet}, the`).answer(` ${p.animal}`).add(` of`).answer(` ${p.name}`).add(`, was asleep.`),
  (_, p, d) =>
    d
      .add(`${p.name} looked for the`)
      .answer(` ${p.thing}`)
      .add(` and found it under the`)
      .answer(` ${p.colour} coat`)
      .add(`.`),
  (r, p, d) =>
    d
      .add(`The ${p.trade} from`)
      .answer(` ${p.town}`)
      .add(` met ${r.pick(people)} at the ${r.pick(places)}.`),
  (_, p, d) => d.add(`The birthday of ${p.name} is in`).answer(` ${p.month}`).add(`.`),
  (_, p, d) => d.add(`The`).answer(` ${p.animal}`).add(` called ${p.pet} ran after`).answer(` ${p.name}`).add(`.`),
];

const questions: readonly Teller[] = [
  (_, p, d) => d.add(`Where does ${p.name} live? Answer:`).answer(` ${p.town}.`),
  (_, p, d) => d.add(`What is the work of ${p.name}? Answer:`).answer(` ${p.trade}.`),
  (_, p, d) => d.add(`What does ${p.name} like to eat? Answer:`).answer(` ${p.food}.`),
  (_, p, d) => d.add(`What does ${p.name} carry? Answer:`).answer(` ${p.thing}.`),
  (_, p, d) => d.add(`What is the name of the pet of ${p.name}? Answer:`).answer(` ${p.pet}.`),
  (_, p, d) => d.add(`Which colour does ${p.name} wear? Answer:`).answer(` ${p.colour}.`),
];

/** A story of about `tokens` tokens that ends with questions about its people. */
export function draftStory(random: Random, tokens: number): Draft {
  const cast = makePeople(random, Math.max(1, Math.min(6, Math.floor(tokens / 120))));
  const asked = Math.max(1, Math.floor(tokens / 150));
  const body = tokens - asked * 16;
  const draft = new Draft().add(`The story of ${cast.map((person) => person.name).join(", ")}.\n`);
  for (const introduce of introductions) {
    for (const person of cast) {
      introduce(random, person, draft);
      draft.add(" ");
    }
  }
  let used = estimateTokens(draft.text);
  while (used < body) {
    const sentence = new Draft();
    if (random.unit() < 0.6) random.pick(recollections)(random, random.pick(cast), sentence);
    else sentence.add(makeSentence(random));
    used += estimateTokens(sentence.text) + 0.1;
    for (const [text, known] of piecesOf(sentence)) known ? draft.answer(text) : draft.add(text);
    draft.add(random.unit() < 0.12 ? "\n" : " ");
  }
  for (let i = 0; i < asked; i++) {
    draft.add("\nQuestion: ");
    random.pick(questions)(random, random.pick(cast), draft);
  }
  return draft;
}

/** A draft's text cut at its answers, in order; `known` marks the answers. */
function* piecesOf(draft: Draft): Generator<[text: string, known: boolean]> {
  const { text } = draft;
  let from = 0;
  for (const [start, end] of draft.answers) {
    if (start > from) yield [text.slice(from, start), false];
    yield [text.slice(start, end), true];
    from = end;
  }
  if (from < text.length) yield [text.slice(from), false];
}
