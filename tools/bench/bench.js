/**
 * `npm run bench`: what the tool costs, as ratios inside one run (machines are noisy, ratios less so).
 *
 *   npm run bench                                  the demo model: 1K, 8K and 32K tokens, a few minutes
 *   npm run bench -- --quick                       1K and 4K only
 *   npm run bench -- --model ./model --threads 4
 *   npm run bench -- --transformers .venv/bin/python   beside transformers on the same machine (requirements: tools/oracle)
 */
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { exportModel } from "../../dist/graph/export.js";
import { openModel } from "../../dist/graph/model-folder.js";
import { parsePattern } from "../../dist/pattern/pattern.js";
import { uniformPattern } from "../../dist/pattern/schedule.js";
import { formatBytes } from "../../dist/report/quantities.js";
import { formatTable } from "../../dist/report/text-table.js";
import { measureDecode, measureIndexerShare, measurePeakMemory, measurePrefill } from "./inference.js";
import { measureSearch } from "./search.js";
import { besideTransformers } from "./transformers.js";

const { values: options } = parseArgs({
  options: {
    model: { type: "string", default: fileURLToPath(new URL("../../models/demo", import.meta.url)) },
    threads: { type: "string", default: String(availableParallelism()) },
    quick: { type: "boolean", default: false },
    transformers: { type: "string" },
  },
});

const threads = Number(options.threads);
const model = await openModel(options.model);
const layers = model.config.numHiddenLayers;
const arms = {
  full: parsePattern("F".repeat(layers)),
  quarter: uniformPattern(layers, 4),
};
const prefillLengths = options.quick ? [1024, 4096] : [1024, 8192, 32768];
const decodeLengths = options.quick ? [1024, 4096] : [1024, 8192];

console.log(
  `${model.config.name}: ${layers} layers, index_topk ${model.config.indexTopk}; ${cpus()[0]?.model}, ${threads} threads`,
);

const prefill = [];
for (const length of prefillLengths) {
  const repeats = length <= 8192 ? 3 : 1;
  const seconds = await measurePrefill(model, arms, length, { threads, repeats });
  const share = await measureIndexerShare(model, length, { threads });
  const memory = {
    full: measurePeakMemory(model.path, arms.full, length, threads),
    quarter: measurePeakMemory(model.path, arms.quarter, length, threads),
  };
  prefill.push([
    String(length),
    (length / seconds.full).toFixed(0),
    (length / seconds.quarter).toFixed(0),
    `${(seconds.full / seconds.quarter).toFixed(2)}x`,
    `${(100 * share).toFixed(0)}%`,
    `${(1 / (1 - share * (1 - [...arms.quarter].filter((letter) => letter === "F").length / layers))).toFixed(2)}x`,
    `${formatBytes(memory.full)} / ${formatBytes(memory.quarter)}`,
  ]);
}
print(
  "Prefill",
  ["tokens", "all-F tok/s", "1/4 tok/s", "speed-up", "indexer share", "Amdahl limit", "peak memory"],
  prefill,
);

const decode = [];
for (const length of decodeLengths) {
  const seconds = await measureDecode(model, arms, length, { threads, tokens: 32, repeats: 3 });
  decode.push([
    String(length),
    (1 / seconds.full).toFixed(0),
    (1 / seconds.quarter).toFixed(0),
    `${(seconds.full / seconds.quarter).toFixed(2)}x`,
  ]);
}
print("Decode", ["context", "all-F tok/s", "1/4 tok/s", "speed-up"], decode);

const search = await measureSearch(model, { threads, sequences: 2, length: 1024 });
print(
  `Greedy search to 1/4, ${search.evaluations} evaluations of ${search.sequences} x ${search.length} tokens`,
  ["", "with prefix reuse", "full forward passes", "ratio"],
  [
    ["layer bodies", search.reuse.body, search.naive.body, ratio(search.reuse.body, search.naive.body)],
    ["indexers", search.reuse.indexer, search.naive.indexer, ratio(search.reuse.indexer, search.naive.indexer)],
    [
      "seconds",
      search.reuse.seconds.toFixed(1),
      search.naive.seconds.toFixed(1),
      ratio(search.reuse.seconds, search.naive.seconds),
    ],
  ],
);
console.log(`same losses to the last bit: ${search.identical ? "yes" : "NO"}`);

const scratch = await mkdtemp(join(tmpdir(), "indexcache-bench-"));
try {
  const report = await exportModel(options.model, join(scratch, "model"));
  console.log(
    `\nExport: ${formatBytes(report.bytes)} in ${report.seconds.toFixed(2)} s, ${(report.bytes / 1e6 / report.seconds).toFixed(0)} MB/s`,
  );
} finally {
  await rm(scratch, { recursive: true });
}

if (options.transformers !== undefined) {
  const lengths = options.quick ? [1024, 4096] : [1024, 4096, 8192];
  const rows = await besideTransformers(model, options.transformers, arms.full, lengths, threads);
  print(`Prefill beside transformers, fp32, ${threads} threads, all-F`, rows.head, rows.body);
}

function ratio(part, whole) {
  return (part / whole).toFixed(3);
}

function print(title, head, body) {
  const columns = head.map((name) => ({ title: name, align: "right" }));
  console.log(
    `\n${title}\n${formatTable(
      columns,
      body.map((row) => row.map(String)),
    )}`,
  );
}
