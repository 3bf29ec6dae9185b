/**
 * `npm run bench`: what the tool costs, as ratios inside one run (machines are noisy, ratios less so).
 *
 *   npm run bench                                  the demo model: 1K, 8K and 32K tokens, a few minutes
 *   npm run bench -- --quick                       1K and 4K only
 *   npm run bench -- search                        searches alone: what each saving is worth, some minutes
 *   npm run bench -- rehearsal                     what strategies themselves take at 24 to 78 layers, no model run
 *   npm run bench -- server                        `indexcache serve` alone: its requests against direct evaluation
 *   npm run bench -- --model ./model --threads 4
 *   npm run bench -- --transformers .venv/bin/python   beside transformers on the same machine (requirements: tools/oracle)
 *   npm run bench -- transformers --transformers .venv/bin/python --rivals sdpa   that alone, in turn with one of its ways
 */
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { clocks } from "../../dist/base/clock.js";
import { exportModel } from "../../dist/graph/exported/export.js";
import { openModel } from "../../dist/graph/model-folder.js";
import { parsePattern } from "../../dist/pattern/pattern.js";
import { uniformPattern } from "../../dist/pattern/schedule.js";
import { benchMeasurement } from "../../dist/report/bench/bench-record.js";
import { formatBytes } from "../../dist/report/quantities.js";
import { formatTable, right } from "../../dist/report/text-table.js";
import { PatternTimer } from "../../dist/runtime/generate/pattern-timer.js";
import { readArguments } from "../arguments.js";
import { measurePeakMemory } from "./inference.js";
import { measureRehearsals, measureSearch } from "./search.js";
import { measureServer } from "./server.js";
import { besideTransformers } from "./transformers.js";

const { values: options, positionals } = readArguments(
  {
    model: { type: "string", default: fileURLToPath(new URL("../../models/demo", import.meta.url)) },
    threads: { type: "string", default: String(availableParallelism()) },
    quick: { type: "boolean", default: false },
    transformers: { type: "string" },
    rivals: { type: "string", default: "eager,sdpa,onnx" },
  },
  { choices: ["search", "rehearsal", "server", "transformers"] },
);

const threads = Number(options.threads);
const model = await openModel(options.model);
const layers = model.config.numHiddenLayers;
console.log(
  `${model.config.name}: ${layers} layers, index_topk ${model.config.indexTopk}; ${cpus()[0]?.model}, ${threads} threads`,
);
if (positionals.includes("search")) {
  await benchSearch();
  process.exit();
}
if (positionals.includes("rehearsal")) {
  const rehearsals = await measureRehearsals();
  print(
    "Rehearsals to 1/4 by 16 sequences: a strategy's own bookkeeping, CPU time",
    ["layers", "greedy s", "refine s", "ratio", "patterns"],
    rehearsals.map(({ layers: depth, greedy, refine, patterns: measured }) => [
      String(depth),
      greedy.toFixed(2),
      refine.toFixed(2),
      (refine / greedy).toFixed(1),
      String(measured),
    ]),
  );
  process.exit();
}
if (positionals.includes("server")) {
  await benchServer();
  process.exit();
}
if (positionals.includes("transformers")) {
  await benchTransformers();
  process.exit();
}

const arms = {
  full: parsePattern("F".repeat(layers)),
  quarter: uniformPattern(layers, 4),
};
const prefillLengths = options.quick ? [1024, 4096] : [1024, 8192, 32768];
const decodeTokens = 32;

const patterns = Object.entries(arms).map(([name, pattern]) => ({ name, pattern }));
const longest = Math.max(...prefillLengths);
const timer = await PatternTimer.open(model, Object.values(arms), {
  device: "cpu",
  threads,
  capacity: longest + decodeTokens,
  clock: clocks.wall,
});
const prefill = [];
const decode = [];
for (const length of prefillLengths) {
  const plan = { context: length, repeats: length <= 8192 ? 3 : 1, decodeTokens };
  const timings = await timer.measure(plan);
  const ofPrefill = benchMeasurement(patterns, { context: length, tokens: length, timings: timings.prefill });
  const memory = Object.values(arms).map((pattern) => measurePeakMemory(model.path, pattern, length, threads));
  prefill.push([...speedRow(length, ofPrefill), memory.map(formatBytes).join(" / ")]);
  decode.push(speedRow(length, benchMeasurement(patterns, { context: length, tokens: 1, timings: timings.decode })));
}
await timer.release();
const columns = ["tokens", "all-F tok/s", "1/4 tok/s", "speed-up", "indexer share", "Amdahl limit"];
print("Prefill", [...columns, "peak memory"], prefill);
print("Decode", columns, decode);

await benchSearch();

const scratch = await mkdtemp(join(tmpdir(), "indexcache-bench-"));
try {
  const report = await exportModel(options.model, join(scratch, "model"));
  console.log(
    `\nExport: ${formatBytes(report.bytes)} in ${report.seconds.toFixed(2)} s, ${(report.bytes / 1e6 / report.seconds).toFixed(0)} MB/s`,
  );
} finally {
  await rm(scratch, { recursive: true });
}

if (options.transformers !== undefined) await benchTransformers();

/** A long prefill takes transformers minutes: two are enough to see the ratio. */
async function benchTransformers() {
  const rows = await besideTransformers(model, options.transformers, parsePattern("F".repeat(layers)), {
    lengths: options.quick ? [1024, 4096] : [1024, 4096, 8192],
    threads,
    rivals: options.rivals.split(","),
    repeats: (length) => (length <= 1024 ? 7 : length <= 4096 ? 3 : 2),
  });
  print(`Prefill beside transformers, fp32, ${threads} threads, all-F`, rows.head, rows.body);
}

function speedRow(length, { arms: [full, quarter], indexers }) {
  return [
    String(length),
    full.tokens_per_second.toFixed(0),
    quarter.tokens_per_second.toFixed(0),
    `${quarter.speedup.median.toFixed(2)}x`,
    `${(100 * indexers.share).toFixed(0)}%`,
    `${quarter.limit.toFixed(2)}x`,
  ];
}

/** The shipped calibration set, and windows of which index_topk is half, where rows below it are half of the work. */
async function benchSearch() {
  for (const [length, sequences] of [
    [1024, options.quick ? 2 : 8],
    [256, options.quick ? 4 : 16],
  ]) {
    const { naive, rows, ...set } = await measureSearch(model, { sequences, length });
    print(
      `Searches to 1/4 over ${set.sequences} x ${set.length} tokens, as a share of greedy by full forward passes ` +
        `(${naive.bodies} layer bodies, ${naive.cpu.toFixed(0)} s of CPU)`,
      ["", "layer bodies", "rows of bodies", "CPU", "clock", "pattern", "the same"],
      rows.map((row) => [
        row.title,
        ratio(row.bodies, naive.bodies),
        ratio(row.rows, naive.rows),
        ratio(row.cpu, naive.cpu),
        ratio(row.seconds, naive.seconds),
        row.pattern,
        row.identical ? "yes" : "NO",
      ]),
    );
  }
}

/** Scoring and generating over HTTP beside the same work in this process, and what a common beginning saves. */
async function benchServer() {
  const { length, sequences, direct, ways, prefix, turns, small } = await measureServer(model, {
    threads,
    sequences: options.quick ? 3 : 8,
  });
  print(
    `Scoring ${sequences} x ${length} tokens through \`indexcache serve\`, as a share of direct evaluation ` +
      `(${direct.cpu.toFixed(2)} s of CPU, ${direct.seconds.toFixed(2)} s)`,
    ["", "CPU", "of it the server's", "clock", "requests/s", "bytes a token", "largest difference"],
    ways.map((way) => [
      way.title,
      ratio(way.cpu, direct.cpu),
      ratio(way.serverCpu, direct.cpu),
      ratio(way.seconds, direct.seconds),
      (sequences / way.seconds).toFixed(2),
      (way.bytes / (sequences * length)).toFixed(1),
      way.difference.toExponential(1),
    ]),
  );
  print(
    `Four answers after one context of ${prefix.context} tokens, their log-probabilities asked for`,
    ["", "rows run", "CPU of the server", "clock", "the same"],
    prefix.rows.map((row) => [
      row.title,
      String(row.rows),
      ratio(row.cpu, prefix.rows[0].cpu),
      ratio(row.seconds, prefix.rows[0].seconds),
      row.identical ? "yes" : "NO",
    ]),
  );
  print(
    "A request of 30 tokens that comes with one of 256 tokens and 128 more, as a share of the long one and then the short one",
    ["", "until the short one is answered", "clock", "CPU of the server", "the same"],
    turns.map((row) => [
      row.title,
      ratio(row.waited, turns[1].seconds),
      ratio(row.seconds, turns[1].seconds),
      ratio(row.cpu, turns[1].cpu),
      row.identical ? "yes" : "NO",
    ]),
  );
  print(
    "Small requests",
    ["", "requests/s", "milliseconds each"],
    small.map(({ title, count, seconds }) => [
      title,
      (count / seconds).toFixed(0),
      ((1000 * seconds) / count).toFixed(1),
    ]),
  );
}

function ratio(part, whole) {
  return (part / whole).toFixed(3);
}

function print(title, head, body) {
  const columns = head.map((name, index) => right(name, (row) => String(row[index])));
  console.log(`\n${title}\n${formatTable(body, columns)}`);
}
