import { expect, test } from "vitest";
import { hashBytes } from "../../../src/base/files.ts";
import {
  commonWordsPrompt,
  frequentWordsPrompt,
  niahPrompt,
  questionPrompt,
  type RulerPrompt,
  variableTrackingPrompt,
} from "../../../src/eval/ruler/templates.ts";

/** SHA-256 of template and answer prefix of NVIDIA/RULER at c3f5e3b4, filled in by Python's str.format. */
test.each<[string, RulerPrompt, string]>([
  ["niah", niahPrompt("numbers", "QUERY", "CONTEXT", false), "2d87913adb9aec1e"],
  ["niah with one answer", niahPrompt("numbers", "QUERY", "CONTEXT", true), "3604e96d3c8cd06e"],
  ["vt", variableTrackingPrompt("CONTEXT", "QUERY", 5), "a7bce293e0fabbbb"],
  ["cwe", commonWordsPrompt("CONTEXT"), "07425c62b2f3cc50"],
  ["fwe", frequentWordsPrompt("CONTEXT"), "4119b6f531854cc6"],
  ["qa", questionPrompt(["ONE", "TWO"], "QUERY"), "5b705c2447688e56"],
])("RULER's prompt for %s is the published one, byte for byte", (_, { input, answerPrefix }, published) => {
  expect(hashBytes(input + answerPrefix).slice(0, 16)).toBe(published);
});
