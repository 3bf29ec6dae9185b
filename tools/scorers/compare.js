/**
 * Scores the records of `official_scores.py` and `published_scores.py` with indexcache's build and counts those that differ from the official score.
 *
 *   npm run build && node tools/scorers/compare.js records.jsonl
 */
import { readFileSync } from "node:fs";
import process from "node:process";
import { nodesF1 } from "../../dist/eval/graphwalks/scoring.js";
import { loadSegmentation } from "../../dist/eval/longbench/segmentation.js";
import { longbenchScore } from "../../dist/eval/longbench/tasks.js";
import { extractAnswer } from "../../dist/eval/longbench/v2.js";
import { mrcrScore } from "../../dist/eval/mrcr/suite.js";
import { stringMatchAll, stringMatchPart } from "../../dist/eval/ruler/scoring.js";

const segment = await loadSegmentation();
if (segment === undefined) throw new Error("needs @node-rs/jieba");
const tools = { codeRatio: "difflib", segment };

function scoreOf({ metric, prediction, answers, classes = [], start = "" }) {
  if (metric === "nodes_f1") return nodesF1(prediction, answers);
  if (metric === "difflib_ratio") return mrcrScore(prediction, answers[0], start);
  if (metric === "choice") return extractAnswer(prediction) === answers[0] ? 1 : 0;
  if (metric === "string_match_all") return 100 * stringMatchAll(prediction, answers);
  if (metric === "string_match_part") return 100 * stringMatchPart(prediction, answers);
  return longbenchScore(metric, prediction, answers, classes, tools);
}

/** RULER's functions round percentages to two decimals; anything else is compared to the last bit. */
const same = (metric, ours, official) =>
  metric.startsWith("string_match") ? Math.abs(ours - official) <= 0.00501 : ours === official;

const counts = new Map();
for (const line of readFileSync(process.argv[2] ?? "records.jsonl", "utf8")
  .trimEnd()
  .split("\n")) {
  const record = JSON.parse(line);
  const ours = scoreOf(record);
  const count = counts.get(record.metric) ?? { records: 0, differ: 0 };
  counts.set(record.metric, count);
  count.records++;
  if (same(record.metric, ours, record.score)) continue;
  count.differ++;
  if (count.differ <= 3) process.stderr.write(`${ours} here, officially ${record.score}: ${JSON.stringify(record)}\n`);
}
let [records, differ] = [0, 0];
for (const [metric, count] of counts) {
  process.stdout.write(`${metric.padEnd(20)} ${count.differ} of ${count.records} differ\n`);
  records += count.records;
  differ += count.differ;
}
process.stdout.write(`${"all".padEnd(20)} ${differ} of ${records} differ\n`);
process.exitCode = differ === 0 ? 0 : 1;
