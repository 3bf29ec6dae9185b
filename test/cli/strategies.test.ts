/** `search` with its strategies, objectives, constraints and journals, on a small model. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { readPatternFile } from "../../src/formats/pattern-file.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { indexcache, tinyModel, writeIds } from "./indexcache.ts";

const folder = temporaryFolder("file");

beforeAll(async () => {
  await writeIds(join(folder, "ids.jsonl"), 6, 48);
  expect((await indexcache(folder, [...words, "--strategy", "greedy", "-q", "-o", "greedy.json"])).status).toBe(0);
});

const words = ["search", tinyModel, "-c", "ids.jsonl", "--sequence-length", "48", "--workers", "1", "--retain", "3"];

/** All that a search of six sequences says when it is to be quiet. */
const fewSequences = expect.stringMatching(/^warning: 6 sequences are few to search by: [^\n]*\n$/);

/** Lines of a journal after its header. */
async function journal(name: string): Promise<{ pattern: string; sequences: { index: number; kl?: number }[] }[]> {
  const lines = (await readFile(join(folder, `${name}.journal.jsonl`), "utf8")).split("\n").slice(1, -1);
  return lines.map((line) => JSON.parse(line) as Awaited<ReturnType<typeof journal>>[number]);
}

describe("search --across worst", () => {
  const mixed = ["search", tinyModel, "-c", "ids.jsonl=0.9", "-c", "others.jsonl=0.1", ...words.slice(4)];

  test("judges by the source that loses most, and says so", async () => {
    await writeIds(join(folder, "others.jsonl"), 4, 48, 40);
    const outcome = await indexcache(folder, [
      ...mixed,
      "--across",
      "worst",
      "--strategy",
      "greedy",
      "-o",
      "worst.json",
    ]);
    expect(outcome).toMatchObject({ status: 0, stdout: expect.stringContaining("searched by the worst source") });
    const file = await readPatternFile(join(folder, "worst.json"));
    expect(file.search.settings).toMatchObject({ across: "worst" });
    const [found] = file.patterns ?? [];
    const changes = (found?.sources ?? []).map(({ change }) => change);
    expect(changes).toHaveLength(2);
    // The last step was judged by the larger one; the file's own loss is the weighted mean.
    expect(file.trajectory.at(-1)?.change).toBeCloseTo(Math.max(...changes), 9);
    expect(file.loss - file.baseline_loss).toBeCloseTo(0.9 * (changes[0] ?? 0) + 0.1 * (changes[1] ?? 0), 9);
    const other = await indexcache(folder, [...mixed, "--strategy", "greedy", "-o", "worst.json", "--resume"]);
    expect(other).toMatchObject({ status: 2, stderr: expect.stringContaining("across") });
  });

  test("is refused with one source and with a race", async () => {
    const alone = await indexcache(folder, [...words, "--across", "worst"]);
    expect(alone).toMatchObject({ status: 2, stderr: expect.stringContaining("needs several sources") });
    const raced = await indexcache(folder, [...mixed, "--across", "worst", "--effort", "quick"]);
    expect(raced).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("--race does not go with --across worst"),
    });
  });
});

describe("search --strategy", () => {
  test.each([
    [[], { strategy: "refine", objective: "nll" }],
    [["--strategy", "greedy", "--race"], { strategy: "greedy", settings: { race_alpha: 0.1 } }],
    [["--strategy", "greedy", "--objective", "kl"], { strategy: "greedy", objective: "kl" }],
    [["--strategy", "blockwise", "--blocks", "2"], { strategy: "blockwise", settings: { blocks: 2 } }],
    [["--strategy", "exhaustive"], { strategy: "exhaustive" }],
  ])("%j writes a file that says so", async (options, search) => {
    const name = `${options.join("")}.json`;
    const outcome = await indexcache(folder, [...words, ...options, "-o", name]);
    expect(outcome).toMatchObject({ status: 0, stderr: expect.stringMatching(/\nbaseline: loss .*\n(.*\n)*step /) });
    const file = await readPatternFile(join(folder, name));
    expect(file).toMatchObject({ search });
    // The default does as well where it may run as many layers: here are six patterns of that size.
    const isOptimum = ["refine", "exhaustive"].includes(search.strategy);
    expect(/^Optimum +every pattern was measured/m.test(outcome.stdout)).toBe(isOptimum);
    expect(file.search.optimum).toBe(isOptimum ? true : undefined);
    expect(file.index_topk_pattern).toMatch(/^F(S*F){2}S*$/);
    const [found] = file.patterns ?? [];
    // Both objectives are told, whichever the search went by.
    expect(found).toMatchObject({
      full_layers: 3,
      loss: file.loss,
      kl: expect.any(Number),
      change_error: expect.any(Number),
    });
    expect(new Set((await journal(name)).map(({ pattern }) => pattern)).size).toBe(file.search.evaluations);
    expect(outcome.stdout).toMatch(new RegExp(`^Pattern +${file.index_topk_pattern}$`, "m"));
    expect(outcome.stdout).toMatch(new RegExp(`^Strategy +${search.strategy}`, "m"));
    const greedy = await readPatternFile(join(folder, "greedy.json"));
    if (["refine", "exhaustive"].includes(search.strategy)) expect(file.loss).toBeLessThan(greedy.loss + 2e-5);
    // Not only a way of writing: what was found can be used.
    const used = await indexcache(folder, ["loss", tinyModel, ...words.slice(2, 8), "-p", name, "--json", "-q"]);
    expect(JSON.parse(used.stdout)).toMatchObject({ loss: expect.closeTo(file.loss, 6) as number });
  });

  test("holds text out, meets several targets at once, and measures what is reported on what was held out", async () => {
    const args = [...words, "--retain", "4,2", "--holdout", "1/3", "--pin-full", "3", "--json", "-q"];
    const file = JSON.parse((await indexcache(folder, args)).stdout) as Awaited<ReturnType<typeof readPatternFile>>;
    expect(file.calibration).toMatchObject({ sequences: 4, held_out_sequences: 2, tokens: 4 * 48 });
    expect(file.search.settings).toMatchObject({ pin_full: "3", holdout: "1/3", seed: 0 });
    expect(file.patterns?.map((found) => found.full_layers)).toEqual([4, 2]);
    for (const { index_topk_pattern: pattern, held_out: out, second_look: look } of file.patterns ?? []) {
      expect(pattern[3]).toBe("F");
      expect(out).toMatchObject({
        loss: expect.any(Number),
        change: expect.any(Number),
        change_error: expect.any(Number),
      });
      expect(look).toMatchObject({ first_pattern: expect.stringMatching(/^F/), held_out_gain: expect.any(Number) });
    }
    expect(file.index_topk_pattern).toBe("FSSFS");
    // Each of them can be used by its size.
    await writeFile(join(folder, "both.json"), JSON.stringify(file));
    const loss = ["loss", tinyModel, ...words.slice(2, 8), "--json", "-q", "-p"];
    for (const [size, at] of [
      ["4", 0],
      ["0.8", 0],
      ["2", 1],
    ] as const) {
      const used = JSON.parse((await indexcache(folder, [...loss, `both.json@${size}`])).stdout);
      expect(used.index_topk_pattern).toBe(file.patterns?.[at]?.index_topk_pattern);
    }
    const serving = await indexcache(folder, ["pattern", "both.json@4", "--for", "vllm", "-q"]);
    expect(serving.stdout).toContain(`"index_topk_pattern": "${file.patterns?.[0]?.index_topk_pattern}"`);
    expect(await indexcache(folder, [...loss, "both.json@1"])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/has no pattern with 1 Full layers; it has 5, 4, 3, 2\n/),
    });
  });

  test("takes losses from other strategies' journals, and refuses to go on with them as its own", async () => {
    const exhaustive = [...words, "--strategy", "exhaustive", "-q"];
    expect((await indexcache(folder, [...exhaustive, "-o", "alone.json"])).status).toBe(0);
    const reuse = ["--reuse", "greedy.json.journal.jsonl"];
    expect(await indexcache(folder, [...exhaustive, "-o", "both.json", ...reuse])).toMatchObject({
      status: 0,
      stderr: fewSequences,
    });
    const [both, alone] = [
      await readPatternFile(join(folder, "both.json")),
      await readPatternFile(join(folder, "alone.json")),
    ];
    expect(both.patterns).toEqual(alone.patterns);
    const known = new Set((await journal("greedy.json")).map(({ pattern }) => pattern));
    expect((await journal("both.json")).filter(({ pattern }) => known.has(pattern))).toEqual([]);
    const resumed = await indexcache(folder, [...exhaustive, "-o", "greedy.json", "--resume"]);
    expect(resumed).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("search.strategy (journal: greedy, now: exhaustive)"),
    });
    const shorter = await indexcache(folder, [...exhaustive, ...reuse, "--sequences", "5"]);
    expect(shorter).toMatchObject({ status: 2, stderr: expect.stringContaining("calibration_hash (journal: ") });
  });

  test("continues a journal of look-again, which is called refine now, and refuses those of strategies that are gone", async () => {
    expect((await indexcache(folder, [...words, "-q", "-o", "refined.json"])).status).toBe(0);
    const [header = "", ...lines] = (await readFile(join(folder, "refined.json.journal.jsonl"), "utf8")).split("\n");
    // Journals of earlier versions have no checksums.
    const bare = (line: string): string => line.replace(/,"checksum":"[0-9a-f]{8}"\}$/, "}");
    const from = (name: string, strategy: string): Promise<void> => {
      const old = [header.replace('"strategy":"refine"', strategy), ...lines].map(bare).join("\n");
      return writeFile(join(folder, `${name}.journal.jsonl`), old);
    };
    await from("old.json", '"strategy":"look-again"');
    const old = await indexcache(folder, [...words, "--strategy", "look-again", "-o", "old.json", "--resume"]);
    expect(old).toMatchObject({
      status: 0,
      stderr: expect.stringContaining("--strategy look-again is called refine now"),
    });
    const [first, second] = [
      await readPatternFile(join(folder, "refined.json")),
      await readPatternFile(join(folder, "old.json")),
    ];
    expect(second.search.strategy).toBe("refine");
    expect(second.patterns).toEqual(first.patterns);
    for (const [strategy, name] of [
      ['"strategy":"beam","beam_width":2,"direction":"backward"', "--strategy beam, which"],
      ['"strategy":"greedy","swaps":"pairs"', "--strategy greedy --swaps, which"],
    ] as const) {
      await from("gone.json", strategy);
      expect(await indexcache(folder, [...words, "-q", "-o", "gone.json", "--resume"])).toMatchObject({
        status: 2,
        stderr: expect.stringContaining(`gone.json.journal.jsonl" is of ${name} this version no longer has`),
      });
    }
  });

  test("joins journals of one search, and says where it stands", async () => {
    const lines = (await readFile(join(folder, "greedy.json.journal.jsonl"), "utf8")).split("\n");
    await writeFile(join(folder, "one.jsonl"), `${[lines[0], ...lines.slice(1, 5)].join("\n")}\n`);
    await writeFile(join(folder, "two.jsonl"), `${[lines[0], ...lines.slice(3, -1)].join("\n")}\n`);
    const merge = ["search", "merge", "one.jsonl", "two.jsonl", "-o"];
    const merged = await indexcache(folder, [...merge, "merged.json.journal.jsonl"]);
    expect(merged).toMatchObject({
      status: 0,
      stdout: "",
      stderr: expect.stringContaining("12 were in several journals"),
    });
    expect(await journal("merged.json")).toEqual(await journal("greedy.json"));
    const resume = [...words, "--strategy", "greedy", "-q", "-o", "merged.json", "--resume"];
    expect((await indexcache(folder, resume)).status).toBe(0);
    expect(await journal("merged.json")).toEqual(await journal("greedy.json"));

    const status = await indexcache(folder, ["search", "--status", "merged.json.journal.jsonl"]);
    expect(status.stdout).toContain("Search    greedy, objective nll\n");
    const file = await readPatternFile(join(folder, "greedy.json"));
    expect(status.stdout).toContain(file.index_topk_pattern);
    const record = JSON.parse((await indexcache(folder, ["search", "--status", "one.jsonl", "--json"])).stdout);
    expect(record).toMatchObject({ strategy: "greedy", patterns: 4, sequence_evaluations: 24 });

    for (const [args, message] of [
      [["search", "merge", "one.jsonl", "-o", "x.jsonl"], "merge needs at least two journals"],
      [[...merge, "one.jsonl"], '--output is "one.jsonl", which this command reads'],
      [[...merge, "merged.json.journal.jsonl"], "exists already"],
    ] as const) {
      expect(await indexcache(folder, args)).toMatchObject({ status: 2, stderr: expect.stringContaining(message) });
    }
  });

  test("takes speed-ups as targets, by the costs that bench has measured, and says which sizes are worth having", async () => {
    const bench = ["bench", tinyModel, "--contexts", "64", "--repeats", "1", "--latency", "measured.json", "-q"];
    expect((await indexcache(folder, bench)).status).toBe(0);
    const measured = JSON.parse(await readFile(join(folder, "measured.json"), "utf8"));
    const costs = [
      { phase: "prefill", context: 64, other_seconds: 0, full_layer_seconds: 0.4, shared_layer_seconds: 0.1 },
      { phase: "decode", context: 64, other_seconds: 0.5, full_layer_seconds: 0.3, shared_layer_seconds: 0.1 },
    ];
    await writeFile(join(folder, "costs.json"), JSON.stringify({ ...measured, costs }));
    const fast = [...words, "--strategy", "greedy", "-q", "--latency", "costs.json", "--retain", "2x,1.3x"];
    const outcome = await indexcache(folder, [...fast, "--json", "--pareto", "pareto.csv"]);
    expect(outcome).toMatchObject({ status: 0, stderr: fewSequences });
    const file = JSON.parse(outcome.stdout) as Awaited<ReturnType<typeof readPatternFile>>;
    // 2 s with five Full layers: 2x needs 1 s or less, which one Full layer takes (0.8 s); 1.3x leaves three (1.4 s).
    expect(file.predicted).toEqual({ phase: "prefill", context: 64 });
    expect(file.patterns?.map((one) => [one.full_layers, one.predicted_speedup])).toEqual([
      [3, expect.closeTo(2 / 1.4, 9)],
      [1, expect.closeTo(2.5, 9)],
    ]);
    const [header, ...lines] = (await readFile(join(folder, "pareto.csv"), "utf8")).trimEnd().split("\n");
    expect(header).toBe("full_layers,index_topk_pattern,loss,change,change_error,predicted_seconds,predicted_speedup");
    const losses = lines.map((line) => Number(line.split(",")[2]));
    expect(losses).toEqual(losses.toSorted((left, right) => left - right));
    for (const [args, message] of [
      [[...fast, "--phase", "decode", "--retain", "3x"], "a single Full layer is predicted to give 1.67x decode"],
      [[...words, "--retain", "1.5x"], "--retain 1.5x is a speed-up: it needs --latency FILE"],
      [[...words, "--pareto", "p.csv"], "--pareto needs --latency FILE"],
      [[...fast, "--context", "128"], "has no prefill at 128 tokens; it has 64"],
    ] as const) {
      expect(await indexcache(folder, args)).toMatchObject({ status: 2, stderr: expect.stringContaining(message) });
    }
  });

  test("plans without searching", async () => {
    const args = [...words, "--strategy", "greedy", "--dry-run", "-q"];
    const { stdout, status } = await indexcache(folder, args);
    expect(status).toBe(0);
    // Five layers of six sequences: the baseline's 30, candidates from 4 + 3 + 2 + 1 and 3 of 4, 3, 2, 1 layers.
    expect(stdout).toMatch(/^Patterns {8}8, each on up to 6 sequences$/m);
    expect(stdout).toMatch(/^One evaluation {2}\S+ s, every layer Full$/m);
    expect(stdout).not.toContain("Optimum");
    const refined = await indexcache(folder, [...words, "--dry-run", "-q"]);
    expect(refined.stdout).toMatch(/^Optimum {9}every pattern of the wanted sizes is measured/m);
    const plan = JSON.parse((await indexcache(folder, [...args, "--json", "--retain", "4,3"])).stdout);
    expect(plan).toMatchObject({ targets: [4, 3], patterns: 8, exact: true, sequences: 6, naive_layers: 8 * 5 * 6 });
  });

  test.each([
    [["--strategy", "best"], "Allowed choices are refine, greedy, blockwise, exhaustive"],
    [["--strategy", "beam"], "This version no longer has it: no measurement favoured it over refine"],
    [["--blocks", "4"], "--blocks is an option of --strategy blockwise, not of --strategy refine"],
    [["--strategy", "blockwise", "--blocks", "0"], "It must be 1 or more"],
    [["--race"], "--race goes with greedy, blockwise, not with --strategy refine"],
    [["--strategy", "blockwise", "--blocks", "9"], "--blocks is 9, the model has 5 layers"],
    [["--strategy", "exhaustive", "--retain", "9"], "more than the model's 5 layers"],
    [["--retain", "1/2,x"], '--retain is "x": it must be a fraction'],
  ])("refuses %j with exit code 2", async (options, message) => {
    const outcome = await indexcache(folder, [...words, ...options]);
    expect(outcome).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining(message) });
    expect(outcome.stderr).not.toContain("    at ");
  });
});
