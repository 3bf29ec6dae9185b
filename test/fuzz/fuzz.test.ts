/**
 * Mutated inputs of every kind that the program reads: each is refused in a sentence with exit code 2, or what is read
 * from it is what the good input says. `npm test` tries some hundred, always the same ones; `npm run fuzz -- --minutes 30`
 * goes on with other seeds (tools/fuzz/run.js).
 */
import { appendFileSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkpointClasses } from "./classes/checkpoints.ts";
import { commandLineClasses } from "./classes/command-line.ts";
import { dataClasses } from "./classes/data.ts";
import { patternClasses } from "./classes/patterns.ts";
import { placeClasses } from "./classes/places.ts";
import { resultClasses } from "./classes/results.ts";
import { tokenizerClasses } from "./classes/tokenizers.ts";
import { judge } from "./fuzz-class.ts";
import { Watchdog } from "./watchdog.ts";

const classes = [
  ...checkpointClasses,
  ...tokenizerClasses,
  ...patternClasses,
  ...resultClasses,
  ...dataClasses,
  ...placeClasses,
  ...commandLineClasses,
];

const seed = Number(process.env.FUZZ_SEED ?? 1);
const times = Number(process.env.FUZZ_TIMES ?? 1);
const report = process.env.FUZZ_REPORT;
const only = process.env.FUZZ_CLASS;
const given = process.env.FUZZ_CASE;

let root: string;
const watchdog = new Watchdog();
beforeAll(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), "indexcache-fuzz-")));
  process.env.XDG_CACHE_HOME = join(root, "cache");
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe.each(classes.filter(({ name }) => only === undefined || name === only))("$name", (one) => {
  test("is refused in a sentence, or read as it is", { timeout: 3_600_000 }, async () => {
    const attempt = await one.prepare(mkdtempSync(join(root, "case-")));
    const cases =
      given === undefined
        ? fc.sample(one.mutation, { numRuns: one.runs * times, seed })
        : [JSON.parse(given) as unknown];
    const faults: string[] = [];
    for (const mutation of cases) {
      const reproducer = `--class ${JSON.stringify(one.name)} --case '${JSON.stringify(mutation).replaceAll("'", "'\\''")}'`;
      watchdog.watch(reproducer);
      const { outcome, fault } = await judge(attempt, mutation);
      watchdog.watch(undefined);
      if (report !== undefined)
        appendFileSync(report, `${JSON.stringify({ name: one.name, outcome, ...fault, reproducer })}\n`);
      if (fault !== undefined)
        faults.push(`${fault.kind}: ${fault.words}\n  npm run fuzz -- ${reproducer.slice(0, 2000)}`);
    }
    expect(faults).toEqual([]);
  });
});

test("nothing has reached the prototype of all objects", () => {
  expect(Object.keys(Object.prototype)).toEqual([]);
  expect(({} as Record<string, unknown>).polluted).toBeUndefined();
});
