/** What the demo shows at its end: the questions, what the model answers under each pattern, and what each pattern costs. */

import type { Pattern } from "../pattern/pattern.ts";
import { countFull } from "../pattern/pattern.ts";
import { formatLoss, formatLossChange } from "./quantities.ts";
import { formatTable, left } from "./text-table.ts";

export interface DemoArm {
  name: string;
  pattern: Pattern;
  /** Mean NLL of held-out text, nats per token. */
  loss: number;
}

export interface DemoQuestion {
  task: string;
  /** In a few words. */
  question: string;
  expected: string;
  /** In the order of the arms. */
  answers: { text: string; correct: boolean }[];
}

export interface DemoResult {
  arms: DemoArm[];
  questions: DemoQuestion[];
  /** Tokens of a question with its text. */
  length: number;
}

/** A wrong answer is shown as far as it takes to see that it is wrong. */
const SHOWN_ANSWER = 8;
const SHOWN_EXPECTATION = 11;
const SHOWN_QUESTION = 27;

export function formatDemoReport({ arms, questions, length }: DemoResult): string {
  const [baseline] = arms;
  const correct = (arm: number) => questions.filter(({ answers }) => answers[arm]?.correct === true).length;
  const lossOf = (arm: DemoArm) =>
    arm === baseline || baseline === undefined ? formatLoss(arm.loss) : formatLossChange(arm.loss - baseline.loss);
  const lines: [name: string, expected: string, ofArm: (arm: DemoArm, index: number) => string][] = [
    ...questions.map(({ question, expected, answers }): (typeof lines)[number] => [
      cut(question, SHOWN_QUESTION),
      cut(expected, SHOWN_EXPECTATION),
      (_, arm) => (answers[arm]?.correct === true ? "✓" : `✗ ${cut(answers[arm]?.text ?? "", SHOWN_ANSWER)}`),
    ]),
    ["answered as expected", "", (_, arm) => `${correct(arm)} of ${questions.length}`],
    ["loss on held-out text", "", lossOf],
    ["indexers that run", "", ({ pattern }) => `${countFull(pattern)} of ${pattern.length}`],
  ];
  const table = formatTable(lines, [
    left("", ([name]) => name),
    left("expected", ([, expected]) => expected),
    ...arms.map((arm, index) => left<(typeof lines)[number]>(arm.name, ([, , ofArm]) => ofArm(arm, index))),
  ]);
  return [
    `${questions.length} questions about texts of ${length} tokens (✓ as expected, ✗ what came instead):`,
    "",
    table,
  ].join("\n");
}

function cut(text: string, width: number): string {
  const line = text.replace(/\s+/g, " ").trim();
  const letters = [...line];
  return letters.length <= width ? line : `${letters.slice(0, width - 1).join("")}…`;
}
