import { mkdtempSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import type { AnalysisFile } from "../../../src/formats/analysis-file.ts";
import type { BenchMeasurement } from "../../../src/formats/bench-file.ts";
import { formatAnalysisReport } from "../../../src/report/analysis-report.ts";
import { formatBenchReport } from "../../../src/report/bench/bench-report.ts";
import { chartFile } from "../../../src/report/document/chart.ts";
import { readEvidence } from "../../../src/report/document/evidence.ts";
import { htmlPage } from "../../../src/report/document/html-page.ts";
import { type ReportDocument, reportDocument } from "../../../src/report/document/report-document.ts";
import { temporaryFolder } from "../../temporary-folder.ts";
import { analysis, bench, evaluation, search, writeEvidence } from "./evidence.ts";

const folder = temporaryFolder("file");
beforeAll(async () => {
  await writeEvidence(folder);
});

function make(...names: string[]): Promise<ReportDocument> {
  return readEvidence(names.map((name) => join(folder, name))).then(reportDocument);
}

function headings({ markdown }: ReportDocument): string[] {
  return [...markdown.matchAll(/^## (.*)$/gm)].map(([, heading]) => heading ?? "");
}

async function refusal(content: unknown): Promise<unknown> {
  const path = join(folder, "other.json");
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
  return readEvidence([join(folder, "greedy.json"), path]).catch((error: unknown) => error);
}

describe("a report", () => {
  test("has a section for every file, and says where numbers come from", async () => {
    const report = await make("greedy.json", "analysis.json", "bench.json", "eval.json");
    expect(headings(report)).toEqual([
      "Patterns",
      "Loss against retention",
      "Speed",
      "Quality: ruler-core",
      "What layers select",
      "What sharing costs",
      "Serving",
      "How it was made",
    ]);
    expect(report.charts.map(({ name }) => name)).toEqual([
      "patterns.svg",
      "loss.svg",
      "prefill.svg",
      "decode.svg",
      "scores.svg",
      "overlap.svg",
      "recall.svg",
      "similarity.svg",
      "sensitivity.svg",
      "interaction.svg",
    ]);
    for (const part of [
      "**greedy keeps 2 of 4 indexers (50%). Prefill 1.45x measured at 4,096 tokens. Quality not shown on ruler-core.**",
      "loss +0.12500 nats per token (+5.00%) on the calibration set; on text that the search has not seen +0.25000",
      "Measured: prefill of 4,096 tokens 1.45x (1.38x to 1.52x over the repeats); without any work for indexers of Shared layers it would be 1.50x",
      "-3.0 points of 100 over 50 items; neither a loss of more than 1 point nor its absence is proven",
      "inconclusive: 400 more items needed",
      "indexcache search -o greedy.json",
      `--hf-overrides '{"use_index_cache": true, "index_topk_pattern": "FSSF"}'`,
      `\`${"b".repeat(16)}\``,
    ])
      expect(report.markdown).toContain(part);
  });

  test("calls noise what bench does", async () => {
    const lost = (all: typeof bench.prefill) =>
      all.map((one) => ({ ...one, indexers: { ...one.indexers, share_low: -0.1, share_high: 0.7 } }));
    const fast = (all: typeof bench.decode) =>
      all.map((one) => ({ ...one, arms: one.arms.map((arm) => ({ ...arm, limit: 1 })) }));
    await writeFile(
      join(folder, "noisy.json"),
      JSON.stringify({ ...bench, prefill: lost(bench.prefill), decode: fast(bench.decode) }),
    );
    const { markdown } = await make("greedy.json", "noisy.json");
    expect(markdown).toContain("Prefill 1.45x measured at 4,096 tokens, which is noise.");
    expect(markdown.match(/over the repeats\); noise is larger than what indexers take/g)).toHaveLength(2);
  });

  test("leaves out what it has no file for", async () => {
    const report = await make("bench.json");
    expect(headings(report)).toEqual(["Speed", "How it was made"]);
    expect(report.markdown).toContain("No command is recorded in `bench.json`");
  });

  test("says of times what bench says of them", async () => {
    const [first, ...others] = bench.prefill as [BenchMeasurement, ...BenchMeasurement[]];
    const sampled = { ...first, chunks: { timed: 2, all: 16 }, indexers: { ...first.indexers, share_low: -0.1 } };
    const file = { ...bench, prefill: [sampled, ...others] };
    await writeFile(join(folder, "sampled.json"), JSON.stringify(file));
    const { markdown } = await make("sampled.json");
    const printed = formatBenchReport(file);
    for (const part of ["of 16 query chunks, on caches of random rows", "noise is larger than the signal"]) {
      expect(printed).toContain(part);
      expect(markdown).toContain(part);
    }
  });

  test("gives paired errors, held-out losses and, with a journal, every pattern that was tried", async () => {
    const { markdown } = await make("greedy.json");
    expect(markdown).toContain("| +0.06250 | 0.00000 |");
    expect(markdown).toContain("| +0.12500 ± 0.06250 | +0.25000 ± 0.12500 |");
    expect(markdown).toContain("Grey: all 3 patterns");
    await writeFile(join(folder, "alone.json"), JSON.stringify(search));
    expect((await make("alone.json")).markdown).not.toContain("Grey");
  });

  test("of a search by KL draws its results, not its steps, which are KL", async () => {
    const byKl = { ...search, search: { ...search.search, objective: "kl" } };
    await writeFile(join(folder, "kl.json"), JSON.stringify(byKl));
    const { markdown, charts } = await make("kl.json", "analysis.json");
    expect(markdown).toContain("| Step | Shared | Full | KL |");
    const drawn = (all: ReportDocument["charts"]) => all.find(({ name }) => name === "loss.svg")?.svg ?? "";
    expect(drawn(charts)).toContain("nats per token: 0.125; series: kl");
    expect(drawn(charts)).not.toContain("nats per token: 0.0625;");
    expect(drawn((await make("greedy.json")).charts)).toContain("nats per token: 0.0625; series: greedy");
  });

  test("means of layers are over those with an indexer, as analyze prints them", async () => {
    // Layers 1 and 3 are Shared in the model: the only pair is that of layers 2 and 0.
    const columns = (matrix: AnalysisFile["overlap"]["mean"]) => matrix.map((row) => [row[0] ?? null, row[2] ?? null]);
    const ofIndexers = ({ mean, by_position }: AnalysisFile["overlap"]) => ({
      mean: columns(mean),
      by_position: by_position.map((bucket) => ({ ...bucket, mean: columns(bucket.mean) })),
    });
    const statistics = { overlap: ofIndexers(analysis.overlap), recall: ofIndexers(analysis.recall) };
    const file = { ...analysis, ...statistics, similarity: ofIndexers(analysis.similarity), sources: [0, 2] };
    await writeFile(join(folder, "shared.json"), JSON.stringify(file));
    const { markdown } = await make("shared.json");
    expect(markdown).toMatch(/^\| 16 to 31 \| +30 \| +0\.400 \| +0\.400 \| +0\.400 \|$/m);
    expect(formatAnalysisReport(file)).toMatch(/^ *16 to 31 +30 +0\.400 +0\.400 +0\.400$/m);
    const narrow = formatAnalysisReport(file, 80).split("\n");
    expect(Math.max(...narrow.map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  test("does not draw losses on different text into one chart", async () => {
    const other = { ...search, calibration: { ...search.calibration, hash: "9".repeat(64) } };
    await writeFile(join(folder, "elsewhere.json"), JSON.stringify(other));
    const { charts } = await make("greedy.json", "elsewhere.json");
    expect(charts.map(({ name }) => name)).toEqual(["patterns.svg", "loss-1.svg", "loss-2.svg"]);
  });

  test("is the same for the same files", async () => {
    const files = ["greedy.json", "analysis.json", "bench.json", "eval.json"];
    const [first, second] = [htmlPage(await make(...files)), htmlPage(await make(...files))];
    // Not toBe(): nobody reads a difference of two pages.
    expect(first === second).toBe(true);
  });
});

describe("the page", () => {
  test("fetches nothing, runs nothing, and takes names from files as text", async () => {
    const page = htmlPage(await make("greedy.json", "analysis.json", "bench.json", "eval.json"));
    // A path of an engine's source is wider than a phone.
    expect(page).toMatch(/\b[\w/.]{45,}\b/);
    expect(page).toMatch(/^p,li\{overflow-wrap:anywhere\}$/m);
    expect(page).not.toMatch(/<script|<link|<img|<iframe|@import|src=|url\((?!#)/);
    expect(page.match(/href="(?!#|https:)/g)).toBeNull();
    expect(page).toContain("default-src 'none'");
    expect(page).not.toContain("<b>&");
    expect(page).toContain("tiny &lt;b&gt;&amp;&lt;/b&gt; *wild*");
    expect(page.match(/<span class="chart" role="img" aria-label="[^"]{10,}"><svg/g)).toHaveLength(10);
    // An id that two charts had would point into the wrong one.
    const ids = [...page.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test("is dark where the reader's system is, and so are the charts beside it", async () => {
    const report = await make("greedy.json");
    const dark = /@media screen and \(prefers-color-scheme:dark\)\{svg \[fill="#1c2024"\]\{fill:#e8ebee\}/;
    expect(htmlPage(report)).toMatch(dark);
    for (const chart of report.charts) {
      expect(chartFile(chart)).toMatch(/^<svg[^>]*><style>/);
      expect(chartFile(chart)).toMatch(dark);
    }
  });
});

describe("files that do not belong into a report", () => {
  test.each([
    ["text", "{", "is not JSON"],
    ["an object of something else", {}, "is no file that a report is made of"],
    ["a journal", '{"kind":"indexcache-search-journal","format":2}\n', "is a journal"],
    ["a published pattern", { schema_version: 1, published: {} }, "is a published pattern"],
    [
      "another model",
      { ...analysis, model: { ...analysis.model, weight_hash: "0".repeat(64) } },
      "their hashes differ",
    ],
    ["a broken analysis", { ...analysis, sources: [0] }, "overlap.mean"],
    ["a broken bench", { ...bench, machine: {} }, "machine.cpu"],
    ["a broken evaluation", { ...evaluation, arms: [] }, "arms"],
  ])("%s is refused", async (_, content, words) => {
    expect(await refusal(content)).toMatchObject({ code: "E_INPUT", message: expect.stringContaining(words) });
  });

  test("two files of one name would be one series; the same file twice is one", async () => {
    const path = join(folder, "greedy.json");
    const copy = join(folder, "copy.json");
    await writeFile(copy, JSON.stringify(search));
    await writeFile(path, JSON.stringify(search));
    expect((await readEvidence([path, path, copy])).searches).toHaveLength(1);
    const other = join(mkdtempSync(join(folder, "other-")), "greedy.json");
    await writeFile(other, JSON.stringify({ ...search, search: { ...search.search, seconds: 4 } }));
    await expect(readEvidence([path, other])).rejects.toThrow('Two files are called "greedy"');
  });

  test("a search is one series, though an analysis has measured its pattern too", async () => {
    const { charts } = await make("greedy.json", "analysis.json");
    expect(charts.find(({ name }) => name === "loss.svg")?.alt).toBe(
      "Loss against the number of Full layers, for greedy, optimum of similarity",
    );
    const alone = await make("analysis.json");
    expect(alone.charts.find(({ name }) => name === "loss.svg")?.alt).toContain("searched");
  });

  test("the journal of another model is refused", async () => {
    await writeFile(
      join(folder, "moved.json"),
      JSON.stringify({ ...search, model: { ...search.model, weight_hash: "1".repeat(64) } }),
    );
    const { journalText } = await import("./evidence.ts");
    await writeFile(join(folder, "moved.json.journal.jsonl"), journalText());
    await expect(readEvidence([join(folder, "moved.json")])).rejects.toThrow("of another model or calibration set");
    await rm(join(folder, "moved.json"));
  });
});
