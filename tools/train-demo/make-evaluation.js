// Writes evaluation tasks, one RULER-like record a line: {task, input, answerPrefix, outputs, answer}.
//   node tools/train-demo/make-evaluation.js --seed 9001 --samples 100 --out evaluation.jsonl
// `answer` is the full right continuation in the form the corpus teaches. All prompts fit a window of 1,024 tokens.
// Node 22.18 or newer runs the TypeScript that it imports.
import { writeFileSync } from "node:fs";
import { Random } from "../../src/base/random.ts";
import { joinWithAnd, numberedWords } from "../../src/eval/ruler/templates.ts";
import { readArguments } from "../arguments.js";
import { makeCommonWords } from "./corpus/common-words.ts";
import { makeNiah } from "./corpus/niah.ts";
import { makeVariableTracking } from "./corpus/variable-tracking.ts";

const { values } = readArguments({
  seed: { type: "string", default: "9001" },
  samples: { type: "string", default: "100" },
  out: { type: "string", default: "evaluation.jsonl" },
});

const niah = (options) => (random) => {
  const task = makeNiah(random, options);
  return { ...task, answer: ` ${joinWithAnd(task.outputs)}.` };
};
const chain = (options) => (random) => {
  const task = makeVariableTracking(random, options);
  return { ...task, answer: task.outputs.join(" ") };
};
const counts = (options) => (random) => {
  const task = makeCommonWords(random, options);
  return { ...task, answer: ` ${numberedWords(task.outputs)}` };
};

const tasks = {
  // One needle, one question: RULER niah_single_1 (noise) and niah_single_2 (prose).
  niah_single_noise: niah({ haystack: "noise", units: 37 }),
  niah_single_essay: niah({ haystack: "essay", units: 77 }),
  // niah_multikey_1: four needles in prose. niah_multikey_2: the haystack itself is made of needles.
  niah_multikey_essay: niah({ haystack: "essay", units: 73, keys: 4 }),
  niah_multikey_needles: niah({ haystack: "needle", units: 39 }),
  // vt: one chain, four hops, five names of five letters. The second asks for one of two chains.
  vt_one_chain: chain({ units: 33 }),
  vt_two_chains: chain({ units: 30, chains: 2 }),
  cwe_three: counts({ common: 3, others: 130 }),
};

const lines = [];
for (const [name, make] of Object.entries(tasks)) {
  for (let i = 0; i < Number(values.samples); i++) {
    const { input, answerPrefix, outputs, answer } = make(
      Random.forPart(Number(values.seed), `evaluation/${name}/${i}`),
    );
    lines.push(`${JSON.stringify({ task: name, input, answerPrefix, outputs, answer })}\n`);
  }
}
writeFileSync(values.out, lines.join(""));
