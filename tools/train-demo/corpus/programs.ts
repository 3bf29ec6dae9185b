/**
 * Small programs and what they print. Numbers stay small, and every result follows from the text above it: assignments,
 * sums, text that is printed several times.
 */
import type { Random } from "../../../src/base/random.ts";
import { Draft } from "./draft.ts";
import { estimateTokens } from "./token-estimate.ts";
import { animals, things } from "./words.ts";

interface State {
  numbers: Map<string, number>;
  texts: Map<string, string>;
  printed: string[];
}

type Statement = (random: Random, state: State, fresh: () => string) => string;

const assignNumber: Statement = (random, state, fresh) => {
  const name = fresh();
  const value = random.integer(1, 20);
  state.numbers.set(name, value);
  return `let ${name} = ${value}`;
};

const assignText: Statement = (random, state, fresh) => {
  const name = fresh();
  const value = random.pick(animals);
  state.texts.set(name, value);
  return `let ${name} = "${value}"`;
};

const add: Statement = (random, state, fresh) => {
  const [from, value] = random.pick([...state.numbers]);
  const step = random.integer(1, 9);
  const name = fresh();
  state.numbers.set(name, value + step);
  return `let ${name} = ${from} + ${step}`;
};

const printNumber: Statement = (random, state) => {
  const [name, value] = random.pick([...state.numbers]);
  state.printed.push(String(value));
  return `print ${name}`;
};

const printText: Statement = (random, state) => {
  const [name, value] = random.pick([...state.texts]);
  const times = random.integer(1, 4);
  for (let i = 0; i < times; i++) state.printed.push(value);
  return times === 1 ? `print ${name}` : `repeat ${times}: print ${name}`;
};

/** One program with its output, which is a list of answers. */
function draftProgram(random: Random, statements: number): Draft {
  const state: State = { numbers: new Map(), texts: new Map(), printed: [] };
  const names = random.sample(things, statements + 2);
  const fresh = () => names.pop() ?? "x";
  const lines = [assignNumber(random, state, fresh), assignText(random, state, fresh)];
  for (let i = 0; i < statements; i++) {
    lines.push(random.pick([assignNumber, assignText, add, printNumber, printText, printNumber])(random, state, fresh));
  }
  lines.push(printText(random, state, fresh));
  const draft = new Draft().add(`Program:\n${lines.join("\n")}\nIt prints:`);
  for (const word of state.printed) draft.answer(` ${word}`);
  return draft.add("\n");
}

/** Programs one after another until about `tokens` tokens are full. */
export function draftPrograms(random: Random, tokens: number): Draft {
  const draft = new Draft();
  let used = 0;
  do {
    const program = draftProgram(random, random.integer(2, 10));
    used += estimateTokens(program.text);
    let from = 0;
    for (const [start, end] of program.answers) {
      draft.add(program.text.slice(from, start)).answer(program.text.slice(start, end));
      from = end;
    }
    draft.add(program.text.slice(from));
  } while (used + 60 < tokens);
  return draft;
}
