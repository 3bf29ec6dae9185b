/**
 * GraphWalks: a directed graph as a list of edges, and a walk over it that has to be carried out. The wording is that of
 * OpenAI's data set (openai/graphwalks, MIT) since its revision of February 2026, which asks for the nodes of exactly one
 * depth. How its graphs were drawn is not published; here every node has an edge that leaves it, all ends are drawn alike,
 * and a node may point to itself or twice to the same node, as in the published graphs.
 */
import { createHash } from "node:crypto";
import type { Random } from "../../base/random.ts";

export type WalkKind = "bfs" | "parents";

export interface GraphWalk {
  prompt: string;
  /** The nodes that the operation results in, in the order in which the edges lead to them; at least one. */
  answer: readonly string[];
}

const instructions = `You will be given a graph as a list of directed edges. All nodes are at least degree 1. You will also get a description of an operation to perform on the graph.
Your job is to execute the operation on the graph and return the set of nodes that the operation results in. If asked for a breadth-first search (BFS), only return the nodes that are both reachable and exactly at that depth (not nodes at intermediate depths), and do not return the starting node. If asked for the parents of a node, only return the nodes that have an edge leading to the given node, do not return the given node itself.

Here is an example:
<begin example>

The graph has the following edges:
uvwx -> alke
abcd -> uvwx
abcd -> efgh
efgh -> uvwx

Example 1:
Operation:
Perform a BFS from node abcd with depth 1.
Final Answer: [uvwx, efgh]

Example 2:
Operation:
Perform a BFS from node alke with depth 1.
Final Answer: []

Example 3:
Operation:
Find the parents of node uvwx.
Final Answer: [abcd, efgh]

Example 4:
Operation:
Find the parents of node abcd.
Final Answer: []

<end example>
Here is the graph to operate on:
The graph has the following edges:
`;

const ending = `
You should immediately return the set of nodes that the operation results in, with no additional text. Return your final answer as a list of nodes in the very last line of your response. For example, if the operation returns the set of nodes [node1, node2, node3], your response should be:
Final Answer: [node1, node2, node3]
If the operation returns the empty set, your response should be:
Final Answer: []`;

/** Edges that leave a node, on average: how fast a search widens. */
const degrees = [1.2, 1.5, 2, 3];
/** Answers have to fit into some hundred tokens. */
const MOST_ANSWERS = 10;
const DEEPEST = 6;
/** Places where a walk is tried. */
const TRIES = 60;

/** Fewer edges make no graph to walk on. */
export const FEWEST_EDGES = 4;

/** The answer as a model has to write it. */
export function graphAnswer(nodes: readonly string[]): string {
  return `Final Answer: [${nodes.join(", ")}]`;
}

/** @param edges at least `FEWEST_EDGES` */
export function graphWalk(random: Random, edges: number, kind: WalkKind): GraphWalk {
  const count = Math.max(2, Math.round(edges / random.pick(degrees)));
  let graph: Graph;
  let walk: Walk | undefined;
  // A graph of a few nodes may have every node point to itself.
  do {
    graph = drawGraph(random, count, edges);
    walk = kind === "parents" ? findParents(random, graph) : findFrontier(random, graph);
  } while (walk === undefined);
  const { from, to, order } = graph;
  const lines = order.map((edge) => `${nodeName(from[edge] ?? 0)} -> ${nodeName(to[edge] ?? 0)}\n`);
  return {
    prompt: `${instructions}${lines.join("")}\n\nOperation:\n${walk.operation}\n${ending}`,
    answer: walk.answer.map(nodeName),
  };
}

const names: string[] = [];

/** The published graphs name their nodes alike: ten digits of the MD5 of a number. */
function nodeName(node: number): string {
  names[node] ??= createHash("md5").update(String(node)).digest("hex").slice(0, 10);
  return names[node];
}

interface Graph {
  count: number;
  from: Uint32Array;
  to: Uint32Array;
  /** Edges as the prompt lists them. */
  order: readonly number[];
}

function drawGraph(random: Random, count: number, edges: number): Graph {
  const [from, to] = [new Uint32Array(edges), new Uint32Array(edges)];
  for (let edge = 0; edge < edges; edge++) {
    from[edge] = edge < count ? edge : random.integer(0, count - 1);
    to[edge] = random.integer(0, count - 1);
  }
  return { count, from, to, order: random.shuffled(Array.from(from.keys())) };
}

interface Walk {
  operation: string;
  answer: readonly number[];
  depth?: number;
}

function findParents(random: Random, { count, from, to, order }: Graph): Walk | undefined {
  const parents = new Map<number, Set<number>>();
  for (const edge of order) {
    const [parent, child] = [from[edge] ?? 0, to[edge] ?? 0];
    if (parent === child) continue;
    const known = parents.get(child);
    if (known === undefined) parents.set(child, new Set([parent]));
    else known.add(parent);
  }
  const found = (node: number): Walk => ({
    operation: `Find the parents of node ${nodeName(node)}.`,
    answer: [...(parents.get(node) ?? [])],
  });
  for (let turn = 0; turn < TRIES; turn++) {
    const walk = found(random.integer(0, count - 1));
    if (walk.answer.length > 0 && walk.answer.length <= MOST_ANSWERS) return walk;
  }
  return undefined;
}

function findFrontier(random: Random, graph: Graph): Walk | undefined {
  const { count, from, to, order } = graph;
  const children: number[][] = Array.from({ length: count }, () => []);
  for (const edge of order) children[from[edge] ?? 0]?.push(to[edge] ?? 0);
  let nearest: Walk | undefined;
  for (let turn = 0; turn < TRIES; turn++) {
    const start = random.integer(0, count - 1);
    const wanted = random.integer(2, DEEPEST);
    const seen = new Set([start]);
    let frontier = [start];
    for (let depth = 1; depth <= wanted && frontier.length <= MOST_ANSWERS; depth++) {
      const next: number[] = [];
      for (const node of frontier) {
        for (const child of children[node] ?? []) {
          if (seen.has(child)) continue;
          seen.add(child);
          next.push(child);
        }
      }
      frontier = next;
      if (frontier.length === 0 || frontier.length > MOST_ANSWERS) break;
      const walk = {
        operation: `Perform a BFS from node ${nodeName(start)} with depth ${depth}.`,
        answer: frontier,
        depth,
      };
      if (depth === wanted) return walk;
      if (depth > (nearest?.depth ?? 0)) nearest = walk;
    }
  }
  return nearest;
}
