import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Random } from "../../../src/base/random.ts";
import { graphWalk } from "../../../src/eval/graphwalks/graph-walks.ts";
import type { Suite } from "../../../src/eval/item.ts";
import { openSuite, type SuiteOptions } from "../../../src/eval/suites.ts";
import { temporaryFolder } from "../../temporary-folder.ts";
import { tokenizerHash, wordCounter } from "../counter.ts";
import { collect, failure } from "../suite-outcomes.ts";

const folder = temporaryFolder("test");

const counter = wordCounter();
const open = (options: Partial<SuiteOptions> = {}): Promise<Suite> =>
  openSuite("graphwalks", { counter, tokenizerHash, lengths: [2048], samples: 4, ...options });

/** What the prompt asks, carried out on what the prompt says. */
function walked(prompt: string): Set<string> {
  const [, graph = "", operation = ""] =
    /Here is the graph to operate on:\nThe graph has the following edges:\n(.*?)\n\n\nOperation:\n(.*?)\n/s.exec(
      prompt,
    ) ?? [];
  const edges = graph.split("\n").map((line) => line.split(" -> "));
  const [, child] = /^Find the parents of node (\w+)\.$/.exec(operation) ?? [];
  if (child !== undefined) {
    return new Set(edges.flatMap(([from = "", to]) => (to === child && from !== child ? [from] : [])));
  }
  const [, start = "", depth] = /^Perform a BFS from node (\w+) with depth (\d+)\.$/.exec(operation) ?? [];
  const distance = new Map([[start, 0]]);
  const queue = [start];
  for (let at = 0; at < queue.length; at++) {
    const here = queue[at] as string;
    for (const [from, to = ""] of edges) {
      if (from !== here || distance.has(to)) continue;
      distance.set(to, (distance.get(here) ?? 0) + 1);
      queue.push(to);
    }
  }
  return new Set([...distance].flatMap(([node, steps]) => (steps === Number(depth) ? [node] : [])));
}

describe("generated graphs", () => {
  test("ask for what their edges say, and have room for the answer", async () => {
    const suite = await open();
    const items = await collect(suite);
    expect(items.map(({ task }) => task)).toEqual([
      ...new Array(4).fill("graphwalks_bfs"),
      ...new Array(4).fill("graphwalks_parents"),
    ]);
    expect(suite.total).toBe(8);
    for (const item of items) {
      expect(new Set(item.references)).toEqual(walked(item.prompt.user));
      expect(item.references.length).toBeGreaterThan(0);
      expect(item.fill).toBeGreaterThan(0.95);
      const task = suite.tasks.find(({ name }) => name === item.task);
      expect(counter.encode(item.prompt.user).length + (task?.maxNewTokens ?? 0)).toBeLessThanOrEqual(2048);
      expect(task?.score(`Here it is.${item.goldAnswer}`, item)).toBe(1);
    }
  });

  test("of any number of edges have an answer that is right", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 4, max: 60 }),
        fc.nat(1_000_000),
        fc.constantFrom("bfs" as const, "parents" as const),
        (edges, seed, kind) => {
          const { prompt, answer } = graphWalk(new Random(seed), edges, kind);
          expect(new Set(answer)).toEqual(walked(prompt));
          expect(answer.length).toBeGreaterThan(0);
          expect(answer.length).toBeLessThanOrEqual(10);
          expect(prompt.match(/^[\da-f]{10} -> [\da-f]{10}$/gm)?.length).toBe(edges);
        },
      ),
      { numRuns: 200 },
    );
  });

  test("are those of their seed, remembered or not", async () => {
    const prompts = async (options: Partial<SuiteOptions>): Promise<string[]> =>
      (await collect(await open(options))).map(({ prompt }) => prompt.user);
    const first = await prompts({ cacheFolder: folder });
    expect((await readdir(folder)).every((name) => name.startsWith("graphwalks-graphwalks_"))).toBe(true);
    expect(await prompts({ cacheFolder: folder })).toEqual(first);
    expect(await prompts({})).toEqual(first);
    expect(await prompts({ seed: 43 })).not.toEqual(first);
  });

  test("a length without room for a graph is refused", async () => {
    expect(await failure(open({ lengths: [256] }))).toMatch(
      /GraphWalks's graphwalks_bfs does not fit into 256 tokens: its smallest prompt has \d+, its answer 128 \| give --lengths/,
    );
  });
});

describe("records of openai/graphwalks", () => {
  const record = {
    prompt: "Edges.\nFind the parents.",
    answer_nodes: ["a1", "b2"],
    prompt_chars: 24,
    problem_type: "parents",
  };
  const write = (name: string, text: string): Promise<void> => writeFile(join(folder, name), text);

  test("are asked as they are", async () => {
    const other = { ...record, problem_type: "bfs", answer_nodes: [], date_added: "02-27-2026" };
    await write("data.jsonl", [record, other].map((one) => JSON.stringify(one)).join("\n"));
    const suite = await open({ data: folder });
    const items = await collect(suite);
    expect(items.map(({ task, references, goldAnswer }) => [task, references, goldAnswer])).toEqual([
      ["graphwalks_parents", ["a1", "b2"], "\nFinal Answer: [a1, b2]"],
      ["graphwalks_bfs", [], "\nFinal Answer: []"],
    ]);
    expect(items[0]?.prompt).toEqual({ user: record.prompt, answerPrefix: "", chat: true });
    expect(items[1]?.groups).toEqual({ characters: "up to 4K", added: "02-27-2026" });
    expect(suite.tasks[0]?.maxNewTokens).toBe(4096);
    expect(await collect(await open({ data: folder, tasks: ["graphwalks_bfs"] }))).toHaveLength(1);
  });

  test("may come as CSV, whose lists are text", async () => {
    await write("data.csv", `prompt,answer_nodes,problem_type\n"P","[""a1"", ""b2""]",BFS\n`);
    const [item] = await collect(await open({ data: join(folder, "data.csv") }));
    expect(item?.references).toEqual(["a1", "b2"]);
  });

  test.each([
    [{ ...record, problem_type: "dfs" }, /line 1: "problem_type": expected "bfs" or "parents"/],
    [{ prompt: "x", problem_type: "bfs" }, /line 1: has no "answer_nodes"/],
    [{ ...record, answer_nodes: [{}] }, /line 1: "?answer_nodes/],
  ])("that are bad are named: %j", async (bad, message) => {
    await write("data.jsonl", JSON.stringify(bad));
    expect(await failure(open({ data: join(folder, "data.jsonl") }).then(collect))).toMatch(message);
  });

  test("of other tasks than those asked for are none", async () => {
    await write("data.jsonl", JSON.stringify(record));
    expect(await failure(open({ data: folder, tasks: ["graphwalks_bfs"] }).then(collect))).toMatch(
      /has no record of graphwalks_bfs/,
    );
  });
});
