/**
 * Are `eval`'s intervals and verdicts what they say? Draws worlds whose true difference is known and counts how often the
 * 95% interval holds it, how often a loss as large as the margin passes as non-inferior, and how often the items that an
 * open verdict asks for settle it. After npm run build: node tools/statistics/simulate.js [--runs 2000] [--open-runs 300]
 * [--largest N: only worlds of at most N items] [--json]
 */

import { Random } from "../../dist/base/random.js";
import { compare, differenceRule } from "../../dist/eval/statistics/comparison.js";
import { usualPower } from "../../dist/eval/statistics/power.js";
import { readArguments } from "../arguments.js";
import { openScenarios, scenarios } from "./scenarios.js";

const { values } = readArguments({
  runs: { type: "string", default: "2000" },
  "open-runs": { type: "string", default: "300" },
  largest: { type: "string", default: "Infinity" },
  json: { type: "boolean", default: false },
});
const runs = Number(values.runs);
const openRuns = Number(values["open-runs"]);
const { alpha } = usualPower;

const largest = Number(values.largest);
const closed = scenarios.filter(({ items }) => items <= largest).map(measure);
const open = openRuns > 0 ? openScenarios.filter(({ items }) => items <= largest).map(measureOpen) : [];
if (values.json) {
  console.log(JSON.stringify({ runs, openRuns, closed, open }, null, 2));
} else {
  console.log(`${runs} runs each; the true difference is -margin; nominal: coverage 95%, false verdicts 5%`);
  printTable(
    ["Scores", "n", "Margin", "Coverage", "False non-inferior", "False inferior", "Width"],
    closed.map((one) => [
      one.name,
      one.items,
      one.margin * 100,
      percent(one.coverage),
      percent(one.falseNonInferior),
      percent(one.falseInferior),
      one.width.toFixed(4),
    ]),
  );
  if (open.length > 0) {
    console.log(`\n${openRuns} runs each; no true difference; nominal: settled 80%`);
    printTable(
      ["Scores", "n", "Margin", "Open at first", "Median asked for", "Settled by it"],
      open.map((one) => [
        one.name,
        one.items,
        one.margin * 100,
        percent(one.open),
        one.asked ?? "-",
        percent(one.settled),
      ]),
    );
  }
}

function measure(scenario) {
  const { name, items, margin } = scenario;
  const random = randomOf(`closed/${name}/${items}/${margin}`);
  let [covered, nonInferior, inferior, width] = [0, 0, 0, 0];
  for (let run = 0; run < runs; run++) {
    const rule = differenceRule(scenario.draw(random));
    const [low, high] = [rule.lower(1 - alpha / 2), rule.upper(1 - alpha / 2)];
    if (low <= -margin && -margin <= high) covered++;
    width += high - low;
    if (rule.lower(1 - alpha) > -margin) nonInferior++;
    if (rule.upper(1 - alpha) < -margin) inferior++;
  }
  return {
    name,
    items,
    margin,
    coverage: covered / runs,
    falseNonInferior: nonInferior / runs,
    falseInferior: inferior / runs,
    width: width / runs,
  };
}

function measureOpen(scenario) {
  const { name, items, margin } = scenario;
  const random = randomOf(`open/${name}/${items}`);
  const settings = { margin, power: usualPower, permutations: 20, seed: 1 };
  const asked = [];
  let settled = 0;
  for (let run = 0; run < openRuns; run++) {
    const seen = scenario.draw(random);
    const { verdict: kind, items_needed: itemsNeeded } = compare(seen, settings);
    if (kind !== "inconclusive" || itemsNeeded === undefined) continue;
    asked.push(itemsNeeded);
    const more = scenario.draw(random, itemsNeeded);
    const all = seen.map((stratum, index) => ({ ...stratum, items: [...stratum.items, ...more[index].items] }));
    const rule = differenceRule(all);
    if (rule.lower(1 - alpha) > -margin || rule.upper(1 - alpha) < -margin) settled++;
  }
  asked.sort((left, right) => left - right);
  return {
    name,
    items,
    margin,
    open: asked.length / openRuns,
    asked: asked[Math.floor(asked.length / 2)] ?? null,
    settled: asked.length === 0 ? Number.NaN : settled / asked.length,
  };
}

function randomOf(part) {
  const random = Random.forPart(1, part);
  return () => random.unit();
}

function percent(share) {
  return Number.isNaN(share) ? "-" : `${(100 * share).toFixed(1)}%`;
}

function printTable(titles, rows) {
  const lines = [titles, ...rows.map((row) => row.map(String))];
  const widths = titles.map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  for (const line of lines) {
    console.log(
      line
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])))
        .join("  "),
    );
  }
}
