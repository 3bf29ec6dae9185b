/**
 * GraphWalks' score: F1 of the nodes that an output ends with, as the card of openai/graphwalks describes it. Its code has
 * three faults, mended here as its users (lm-eval and others) have mended them: "Final Answer: [" stays part of the first
 * node; an answer without any right node is given 1; a line break at the end hides the answer.
 */
import { pythonStrip } from "../python-whitespace.ts";

/** @returns undefined where the last line holds no list */
export function answeredNodes(output: string): string[] | undefined {
  const line = output.replace(/\n+$/, "").split("\n").at(-1) ?? "";
  const list = /Final Answer: ?\[([^\n]*)\]/.exec(line)?.[1];
  // Brackets at either end were doubled.
  return list
    ?.replace(/^[[\]]+|[[\]]+$/g, "")
    .split(",")
    .map(pythonStrip)
    .filter((node) => node !== "");
}

/** 0 to 1; 1 for an empty list where nothing is to be found. */
export function nodesF1(output: string, references: readonly string[]): number {
  const nodes = answeredNodes(output);
  if (nodes === undefined) return 0;
  const [answered, right] = [new Set(nodes), new Set(references)];
  if (answered.size === 0 && right.size === 0) return 1;
  const overlap = [...answered].filter((node) => right.has(node)).length;
  if (overlap === 0) return 0;
  const [recall, precision] = [overlap / right.size, overlap / answered.size];
  return (2 * (recall * precision)) / (recall + precision);
}
