/**
 * The fuzz suite (test/fuzz) for longer than `npm test` takes, and counts by class:
 *
 *   npm run fuzz -- --minutes 30 [--seed N] [--class NAME]
 *   npm run fuzz -- --class NAME --case JSON      one case again
 *
 * Every round tries each class with the next seed. Failures are printed with the command that repeats them; exit code 1
 * if there are any.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { readArguments } from "../arguments.js";

const root = resolve(import.meta.dirname, "..", "..");
const { values } = readArguments({
  minutes: { type: "string", default: "0" },
  seed: { type: "string", default: "1" },
  class: { type: "string" },
  case: { type: "string" },
});
const until = Date.now() + Number(values.minutes) * 60_000;
const folder = mkdtempSync(join(tmpdir(), "fuzz-report-"));
const report = join(folder, "report.jsonl");
let seed = Number(values.seed);
let deaths = 0;
do {
  const env = { ...process.env, FUZZ_SEED: String(seed), FUZZ_REPORT: report };
  if (values.class !== undefined) env.FUZZ_CLASS = values.class;
  if (values.case !== undefined) env.FUZZ_CASE = values.case;
  const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
  const before = counted();
  const run = spawnSync(process.execPath, [vitest, "run", "test/fuzz", "--reporter=dot"], {
    cwd: root,
    env,
    encoding: "utf8",
  });
  // A process that died, or whose good inputs could not be made, has told why nowhere else.
  if (run.status !== 0 && counted().faults === before.faults) {
    deaths += 1;
    process.stdout.write(`round with seed ${seed} failed outside of its cases:\n${run.stdout}\n${run.stderr}\n`);
  }
  seed += 1;
} while (Date.now() < until);

const byClass = new Map();
for (const { name, outcome, kind, words, reproducer } of entries()) {
  const row = byClass.get(name) ?? { cases: 0, accepted: 0, refused: 0, faults: 0 };
  row.cases += 1;
  row[outcome] += 1;
  if (kind !== undefined) {
    row.faults += 1;
    process.stdout.write(`${name}: ${kind}: ${words}\n  npm run fuzz -- ${reproducer.slice(0, 2000)}\n`);
  }
  byClass.set(name, row);
}
console.table(Object.fromEntries(byClass));
const kinds = {};
for (const { kind } of entries()) if (kind !== undefined) kinds[kind] = (kinds[kind] ?? 0) + 1;
const { cases, faults } = counted();
process.stdout.write(
  `${cases} cases, seeds ${values.seed} to ${seed - 1}: ${faults} faults ${JSON.stringify(kinds)}, ${deaths} rounds that died\n`,
);
rmSync(folder, { recursive: true });
process.exitCode = faults + deaths > 0 ? 1 : 0;

function entries() {
  if (!existsSync(report)) return [];
  return readFileSync(report, "utf8")
    .trim()
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}

function counted() {
  const all = entries();
  return { cases: all.length, faults: all.filter(({ kind }) => kind !== undefined).length };
}
