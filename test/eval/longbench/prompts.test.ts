import { describe, expect, test } from "vitest";
import { hashBytes } from "../../../src/base/files.ts";
import { fillPrompt, longbenchPrompts } from "../../../src/eval/longbench/prompts.ts";
import { thoughtAnswerPrompt, thoughtPrompt, zeroShotPrompt } from "../../../src/eval/longbench/v2.ts";

const hashOf = (text: string): string => hashBytes(text).slice(0, 16);

/** SHA-256 of the templates in THUDM/LongBench at 2e00731f. */
const published: Record<keyof typeof longbenchPrompts, string> = {
  narrativeqa: "aada7ed24b06abac",
  qasper: "0fbdd123fe7f83d6",
  multifieldqa_en: "20b4666a2de8a1f7",
  multifieldqa_zh: "344b3a4e557cd547",
  hotpotqa: "9ec4ae308865bd0c",
  "2wikimqa": "9ec4ae308865bd0c",
  musique: "9ec4ae308865bd0c",
  dureader: "ae53329f51b17908",
  gov_report: "91c25d585b189ced",
  qmsum: "dca23b678fe0183b",
  multi_news: "2af3f28c40b902e6",
  vcsum: "3e5d8241bc9b512e",
  trec: "0eff8bebdba99d91",
  triviaqa: "00a802e6377e72fc",
  samsum: "a68d884234907eef",
  lsht: "f3edabdf7fae53d6",
  passage_count: "986550b6c61009c6",
  passage_retrieval_en: "39b96b7fa52bdd2a",
  passage_retrieval_zh: "c1e2346e245eb365",
  lcc: "6a1f24cf0bb83cd9",
  "repobench-p": "ee9ec182ea5ffeb7",
};

describe("LongBench's prompts are the published ones, byte for byte:", () => {
  test.each(Object.entries(longbenchPrompts))("%s", (name, template) => {
    expect(hashOf(template)).toBe(published[name as keyof typeof published]);
  });

  test("v2's", () => {
    const asked = { document: "$DOC$", question: " $Q$\n", choices: ["$C_A$", " $C_B$", "$C_C$ ", "$C_D$"] };
    expect(hashOf(zeroShotPrompt(asked))).toBe("68a162252bc9ff71");
    expect(hashOf(thoughtPrompt(asked))).toBe("6cc33d92fd8f6116");
    expect(hashOf(thoughtAnswerPrompt(asked, " $COT$ "))).toBe("85ec59df4ac0e27a");
  });
});

test("what a context contains is no placeholder", () => {
  const context = "braces { } {input} {context} $& $1";
  expect(fillPrompt("<{context}|{input}>", { context, input: "{context}" })).toBe(`<${context}|{context}>`);
  const asked = { document: "$Q$ $&", question: "what?", choices: ["$DOC$", "b", "c", "d"] };
  expect(zeroShotPrompt(asked)).toContain(
    "<text>\n$Q$ $&\n</text>\n\nWhat is the correct answer to this question: what?\n",
  );
});
