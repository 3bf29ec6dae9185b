/** `search --strategy`: each strategy on a small model, and one journal for all of them. */
import { mkdtempSync, rmSync } from "node:fs";
import { copyFile, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readPatternFile } from "../../src/formats/pattern-file.ts";
import { indexcache, tinyModel, writeIds } from "./indexcache.ts";

let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "indexcache-strategies-"));
  await writeIds(join(folder, "ids.jsonl"), 6, 48);
  expect((await indexcache(folder, [...words, "-q", "-o", "greedy.json"])).status).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true }));

const words = ["search", tinyModel, "-c", "ids.jsonl", "--sequence-length", "48", "--retain", "3"];

/** Lines of a journal behind its header. */
async function journal(name: string): Promise<string[]> {
  return (await readFile(join(folder, `${name}.journal.jsonl`), "utf8")).split("\n").slice(1, -1);
}

describe("search --strategy", () => {
  test.each([
    [["--strategy", "forward"], { strategy: "forward" }, 9],
    [["--strategy", "beam"], { strategy: "beam", settings: { beam_width: 2, direction: "backward" } }, 10],
    [
      ["--strategy", "beam", "--beam-width", "3", "--direction", "forward", "--swaps"],
      { strategy: "beam", settings: { beam_width: 3, direction: "forward", swaps: true } },
      12,
    ],
    [["--strategy", "floating"], { strategy: "floating" }, 12],
    [["--strategy", "exhaustive"], { strategy: "exhaustive" }, 7],
    [["--strategy", "look-again"], { strategy: "look-again", second_look: { first_loss: expect.any(Number) } }, 16],
    [["--swaps"], { strategy: "greedy", settings: { swaps: true } }, 16],
  ])("%j writes a file that says so", async (options, search, most) => {
    const name = `${options.join("")}.json`;
    const outcome = await indexcache(folder, [...words, ...options, "-o", name]);
    expect(outcome).toMatchObject({ status: 0, stderr: expect.stringMatching(/\nbaseline: loss .*\n(.*\n)*step /) });
    const file = await readPatternFile(join(folder, name));
    expect(file).toMatchObject({ trajectory: [], search });
    expect(file.index_topk_pattern).toMatch(/^F(S*F){2}S*$/);
    expect(file.search.steps?.at(-1)?.loss).toBe(file.loss);
    expect(file.search.evaluations).toBeLessThanOrEqual(most);
    expect(await journal(name)).toHaveLength(file.search.evaluations);
    expect(outcome.stdout).toContain(`Pattern         ${file.index_topk_pattern}\n`);
    expect(outcome.stdout).toMatch(new RegExp(`^Strategy {8}${search.strategy}`, "m"));
    const { loss } = await readPatternFile(join(folder, "greedy.json"));
    if (search.strategy === "floating" || search.strategy === "look-again") expect(file.loss).toBeLessThan(loss + 1e-9);
    // Not only a way of writing: what was found can be used.
    const used = await indexcache(folder, ["loss", tinyModel, ...words.slice(2, 6), "-p", name, "--json", "-q"]);
    expect(JSON.parse(used.stdout)).toMatchObject({ loss: expect.closeTo(file.loss, 6) as number });
  });

  test("goes on from the journal of another strategy, and gives what it gives alone", async () => {
    for (const end of ["", ".journal.jsonl"])
      await copyFile(join(folder, `greedy.json${end}`), join(folder, `both.json${end}`));
    const floating = [...words, "--strategy", "floating", "-q"];
    expect(await indexcache(folder, [...floating, "-o", "both.json", "--resume"])).toMatchObject({ status: 0 });
    expect((await indexcache(folder, [...floating, "-o", "alone.json"])).status).toBe(0);
    const [both, alone] = [
      await readPatternFile(join(folder, "both.json")),
      await readPatternFile(join(folder, "alone.json")),
    ];
    expect(both.search.evaluations).toBe(alone.search.evaluations);
    expect(both.search.steps).toEqual(alone.search.steps);
    const old = await journal("greedy.json");
    const lines = await journal("both.json");
    expect(lines.slice(0, old.length)).toEqual(old);
    const patterns = lines.map((line) => (JSON.parse(line) as { pattern: string }).pattern);
    expect(new Set(patterns).size).toBe(patterns.length);
  });

  test.each([
    [["--strategy", "best"], "Allowed choices are greedy, forward, beam"],
    [["--beam-width", "4"], "--beam-width is an option of --strategy beam, not of --strategy greedy"],
    [["--strategy", "floating", "--direction", "forward"], "--direction is an option of --strategy beam"],
    [["--strategy", "beam", "--beam-width", "0"], "It must be 1 or more"],
    [["--strategy", "beam", "--direction", "up"], "Allowed choices are backward, forward"],
    [["--strategy", "exhaustive", "--swaps"], "--swaps has nothing to refine behind --strategy exhaustive"],
    [["--strategy", "exhaustive", "--retain", "9"], "the model has 5 layers"],
  ])("refuses %j with exit code 2", async (options, message) => {
    const outcome = await indexcache(folder, [...words, ...options]);
    expect(outcome).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining(message) });
    expect(outcome.stderr).not.toContain("    at ");
  });
});
