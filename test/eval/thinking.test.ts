import { describe, expect, test } from "vitest";
import { leavesThoughtOpen, separateThought } from "../../src/eval/thinking.ts";

const CLOSE = 7;
const letters = (ids: readonly number[]): string => ids.map((id) => (id === CLOSE ? "" : "abcdef "[id])).join("");
const say = (tokens: number[]) => ({ tokens, text: letters(tokens) });

describe("the answer of a model that thinks", () => {
  test("is what follows the last closing tag, by its token where it has one", () => {
    expect(separateThought(say([0, 1, CLOSE, 6, 2, 3]), true, CLOSE, letters)).toEqual({
      answer: "cd",
      thought: { text: "ab", tokens: 2, closed: true },
    });
    expect(separateThought(say([0, CLOSE, 1, CLOSE, 2]), true, CLOSE, letters).answer).toBe("c");
    const text = "<think>\nSo </think> no </think>\n\nParis";
    expect(separateThought({ tokens: [1, 2, 3], text }, false, undefined, letters)).toEqual({
      answer: "Paris",
      thought: { text: "So </think> no", tokens: 3, closed: true },
    });
  });

  test("is none where the thought never closes", () => {
    const open = { answer: "", thought: { text: "abc", tokens: 3, closed: false } };
    expect(separateThought(say([0, 1, 2]), true, CLOSE, letters)).toEqual(open);
    expect(separateThought({ tokens: [0, 1, 2], text: " <think> abc" }, false, CLOSE, letters)).toEqual(open);
  });

  test("is the whole output of a model that did not think", () => {
    expect(separateThought(say([0, 1]), false, CLOSE, letters)).toEqual({ answer: "ab" });
  });
});

test("a prompt ends within a thought where its last opening tag is not closed", () => {
  expect(leavesThoughtOpen("<user>x<assistant><think>\n")).toBe(true);
  expect(leavesThoughtOpen("<user>x<assistant><think>\n</think>\n")).toBe(false);
  expect(leavesThoughtOpen("<user>x<assistant></think>")).toBe(false);
  expect(leavesThoughtOpen("x")).toBe(false);
});
