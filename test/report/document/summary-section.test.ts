import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import type { EvalComparison, EvalResult } from "../../../src/formats/eval-result.ts";
import type { PatternFile } from "../../../src/formats/pattern-schema.ts";
import { parsePattern } from "../../../src/pattern/pattern.ts";
import { readEvidence } from "../../../src/report/document/evidence.ts";
import { forecastPrefill, type PromptLengths } from "../../../src/report/document/prefill-forecast.ts";
import { reportDocument } from "../../../src/report/document/report-document.ts";
import { stripChart } from "../../../src/report/document/strip-chart.ts";
import { summarySection } from "../../../src/report/document/summary-section.ts";
import { temporaryFolder } from "../../temporary-folder.ts";
import { bench, evaluation, search, writeEvidence } from "./evidence.ts";

const folder = temporaryFolder("file");
beforeAll(async () => {
  await writeEvidence(folder);
});

async function verdictOf(files: Record<string, unknown>, lengths?: PromptLengths): Promise<string> {
  const paths = Object.keys(files).map((name) => join(folder, `${name}.json`));
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(folder, `${name}.json`), JSON.stringify(content));
  }
  return summarySection(await readEvidence(paths), lengths);
}

function evaluated(verdict: EvalComparison["verdict"], suite = "ruler-core"): EvalResult {
  return {
    ...evaluation,
    suite: { ...evaluation.suite, name: suite },
    rows: evaluation.rows.map((row) => ({
      ...row,
      comparisons: row.comparisons.map((comparison) => ({ ...comparison, verdict })),
    })),
  };
}

describe("quality", () => {
  test.each([
    [
      "non-inferior",
      "Quality held on ruler-core",
      /is excluded; where there is one, this is said in at most 5% of cases/,
    ],
    ["inferior", "Quality not held on ruler-core", /is proven, with an error of at most 5%/],
    [
      "inconclusive",
      "Quality not shown on ruler-core",
      /neither a loss of more than 1 point nor its absence is proven/,
    ],
  ] as const)("%s", async (found, headline, risk) => {
    const text = await verdictOf({ plain: search, scores: evaluated(found) });
    expect(text.split("\n")[0]).toContain(headline);
    expect(text).toMatch(risk);
  });

  test("where nothing could be lost it cannot be told", async () => {
    const file = evaluated("inconclusive", "graphwalks");
    const noted = (note: EvalComparison["note"]): EvalResult => ({
      ...file,
      rows: file.rows.map((row) => ({ ...row, comparisons: row.comparisons.map((one) => ({ ...one, note })) })),
    });
    const floor = await verdictOf({ plain: search, scores: noted("floor") });
    expect(floor.split("\n")[0]).toContain("Quality not shown: graphwalks cannot tell.");
    expect(floor).toContain("no more than the margin or than guessing, so that no loss could show");
    const still = await verdictOf({ plain: search, scores: noted("no effect") });
    expect(still).toContain("so that the pattern never acted");
  });

  test("what is not held is said first, and every evaluation counts", async () => {
    const text = await verdictOf({
      plain: search,
      a: evaluated("non-inferior", "one"),
      b: evaluated("inferior", "two"),
    });
    expect(text.split("\n")[0]).toBe("**plain keeps 2 of 4 indexers (50%). Quality not held on two; held on one.**");
    expect(text).toContain("Proven losses in tasks: ");
  });

  test("without an evaluation of this pattern it is not shown", async () => {
    expect(await verdictOf({ plain: search })).toContain("No file of eval was given");
    const other = { ...search, index_topk_pattern: "FFSF", trajectory: [], patterns: undefined };
    const text = await verdictOf({ other, scores: evaluated("non-inferior") });
    expect(text).toContain("Quality not shown.");
    expect(text).toContain("The evaluations given are of other patterns");
  });

  test("without a search the verdict is on what was evaluated", async () => {
    expect(await verdictOf({ scores: evaluated("identical") })).toContain(
      "**greedy keeps 2 of 4 indexers (50%). Quality held",
    );
  });
});

describe("speed at prompt lengths", () => {
  const timed = [1000, 3000].map((context) => ({
    context,
    costs: {
      otherSeconds: 1e-3 * context,
      sharedLayerSeconds: 2e-3 * context,
      fullLayerSeconds: 2e-3 * context + 1e-6 * context ** 2,
    },
  }));

  test("is that of a law with a linear and a square part, between and beyond the lengths timed", () => {
    const pattern = parsePattern("FSSS");
    const expected = (tokens: number): number =>
      (9e-3 * tokens + 4e-6 * tokens ** 2) / (9e-3 * tokens + 1e-6 * tokens ** 2);
    const entries = [2000, 3000, 12_000].map((tokens) => ({ tokens, weight: 2 }));
    const { lengths, weightSum } = forecastPrefill(pattern, timed, { entries });
    for (const { tokens, speedup, share } of lengths) {
      expect(speedup).toBeCloseTo(expected(tokens), 9);
      expect(share).toBeCloseTo(1 / 3, 12);
    }
    expect(lengths.map(({ extrapolated }) => extrapolated)).toEqual([false, false, true]);
    expect(weightSum).toBe(6);
  });

  test("of all prompts together is in seconds, so that long ones count for what they take", () => {
    const pattern = parsePattern("FSSS");
    const entries = [
      { tokens: 1000, weight: 0.9 },
      { tokens: 3000, weight: 0.1 },
    ];
    const seconds = (square: number) => 0.9 * (9 + square) + 0.1 * (27 + 9 * square);
    expect(forecastPrefill(pattern, timed, { entries }).speedup).toBeCloseTo(seconds(4) / seconds(1), 9);
  });

  test("is told with what was normalised and what was extrapolated", async () => {
    const entries = [
      { tokens: 2048, weight: 0.5 },
      { tokens: 8192, weight: 0.1 },
    ];
    const text = await verdictOf({ plain: search, times: bench }, { entries });
    expect(text).toMatch(/Prefill \d\.\d\dx predicted over the prompt lengths given, 1\.45x measured at 4,096 tokens/);
    expect(text).toContain("The weights given sum to 0.6, not 1: prompts of other lengths are left out");
    expect(text).toContain("8,192 lies outside the lengths that were timed: extrapolated.");
    expect(text).toMatch(/\| 2,048 \| 83\.3% \| \d\.\d\dx \|/);
  });

  test("comes from a latency file too, and without any file it is not shown", async () => {
    const { model, machine, tool } = bench;
    const costs = [
      { phase: "prefill", context: 4096, other_seconds: 1, full_layer_seconds: 2, shared_layer_seconds: 1 },
    ];
    const latency = { kind: "indexcache-latency", schema_version: 1, model, machine, costs, tool };
    const text = await verdictOf({ plain: search, latency });
    expect(text).toContain("Prefill 1.29x predicted at 4,096 tokens");
    expect(await verdictOf({ plain: search })).toContain("Speed: not shown");
  });
});

test("a pattern of many layers is shown in lines and rows that can be read", async () => {
  const index_topk_pattern = "FFFSSSFSSSF".padEnd(61, "SSSF");
  const model = { ...search.model, layers: 61 };
  const text = await verdictOf({ long: { ...search, index_topk_pattern, model, trajectory: [], patterns: undefined } });
  expect(text).toContain("\n 0  FFFSS SFSSS FSSSF SSSFS\n20  ");
  const { svg } = await stripChart([{ name: "long", pattern: index_topk_pattern }]);
  for (const row of ["long: 0 to 30", "long: 31 to 60"]) expect(svg).toContain(row);
  const letters = svg.match(/>[FS]<\/text>/g) ?? [];
  expect(letters).toHaveLength(61);
});

async function reportOf(file: PatternFile): Promise<string> {
  const path = join(folder, "stability.json");
  await writeFile(path, JSON.stringify(file));
  return (await reportDocument(await readEvidence([path]))).markdown;
}

test("a strip has below it how often each layer is Full in resampled searches", async () => {
  const full = [1, 0, 0.25, 0.75];
  const stability = { resamples: 40, agreement: 0.75, full, sequences_needed: 21, sequences_tried: 24 };
  const patterns = search.patterns?.map((found) => ({ ...found, stability }));
  const { svg } = await stripChart([{ name: "own", pattern: "FSSF", full }]);
  expect(svg).toContain("own, Full in % of resamples");
  expect(svg.match(/>[FS]<\/text>/g)).toHaveLength(4);
  for (const share of ["100", "25", "75"]) expect(svg).toContain(`>${share}</text>`);
  const report = await reportOf({ ...search, patterns });
  expect(report).toContain("2 Full: 30 of 40 resamples agree; 36 need about 21 sequences");
  expect(report).toContain("says in what percentage of the 40 resamples each layer is Full");
  const raced = { ...search, search: { ...search.search, stability_unknown: "race" as const } };
  expect(await reportOf(raced)).toContain("unknown: the race measured most candidates on some of the sequences only");
});
