/** GraphWalks' two operations. */

import type { EvalTask } from "../item.ts";
import { graphAnswer, type WalkKind } from "./graph-walks.ts";
import { nodesF1 } from "./scoring.ts";

/** Changes whenever a generator, a template or a score does. */
export const GRAPHWALKS_VERSION = 1;

/** Ten nodes of ten hexadecimal digits. */
export const GENERATED_ANSWER_TOKENS = 128;
/** Published answers have up to some thousand nodes; those of up to 128K characters, which most models can take, hundreds. */
export const PUBLISHED_ANSWER_TOKENS = 4096;

export interface GraphwalksTask extends EvalTask {
  kind: WalkKind;
}

export function graphwalksTasks(maxNewTokens: number): GraphwalksTask[] {
  return (["bfs", "parents"] as const).map((kind) => ({
    kind,
    name: `graphwalks_${kind}`,
    version: GRAPHWALKS_VERSION,
    metric: "nodes_f1",
    scores: "graded",
    maxNewTokens,
    stop: [],
    score: (output, { references }) => nodesF1(output, references),
  }));
}

/** A base model's answer begins a line of its own. */
export function goldNodes(nodes: readonly string[]): string {
  return `\n${graphAnswer(nodes)}`;
}
