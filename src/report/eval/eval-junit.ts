/** An evaluation as JUnit XML: a suite for each arm, a case for each row, so that CI systems show what failed. */
import type { EvalComparison, EvalResult } from "../../formats/eval-result.ts";
import { cannotTell, failsGate, type Gate } from "./eval-gate.ts";
import { verdictWords } from "./eval-report.ts";

export function formatJunit(result: EvalResult, gate: Gate | undefined): string {
  const suites = result.arms.slice(1).map((arm, index) => junitSuite(result, arm.name, index + 1, gate));
  return ['<?xml version="1.0" encoding="UTF-8"?>', "<testsuites>", ...suites.flat(), "</testsuites>", ""].join("\n");
}

function junitSuite(result: EvalResult, name: string, arm: number, gate: Gate | undefined): string[] {
  const title = attribute(`${result.suite.name}: ${name} against ${result.arms[0]?.name}`);
  let failures = 0;
  const cases = result.rows.flatMap((row) => {
    const comparison = row.comparisons.find((one) => one.arm === arm);
    const open = `    <testcase classname=${title} name=${attribute(`${row.name}${row.endpoint === "choices" ? " (most likely choice)" : ""}`)}`;
    if (comparison === undefined) return [`${open}><skipped message="no item was scored"/></testcase>`];
    const words = attribute(describe(comparison));
    // Without a gate an inferior row fails: that is what a reader of the report would want to see.
    const fails = gate === undefined ? comparison.verdict === "inferior" : failsGate(result, row, comparison, gate);
    if (!fails && cannotTell(comparison)) return [`${open}><skipped message=${words}/></testcase>`];
    if (!fails) return [`${open}><system-out>${text(describe(comparison))}</system-out></testcase>`];
    failures++;
    return [`${open}><failure message=${words}/></testcase>`];
  });
  const skipped = result.skipped_tasks.map(
    ({ task, reason }) =>
      `    <testcase classname=${title} name=${attribute(task)}><skipped message=${attribute(reason)}/></testcase>`,
  );
  const counts = `tests="${cases.length + skipped.length}" failures="${failures}" skipped="${skipped.length}"`;
  return [
    `  <testsuite name=${title} ${counts} time="${result.wall_seconds.toFixed(3)}">`,
    ...cases,
    ...skipped,
    "  </testsuite>",
  ];
}

function describe(comparison: EvalComparison): string {
  const { difference, interval, items } = comparison;
  const points = (value: number) => (100 * value).toFixed(2);
  return `${verdictWords(comparison)}: ${points(difference)} points (${points(interval.low)} to ${points(interval.high)}) on ${items} items`;
}

function attribute(value: string): string {
  return `"${text(value).replaceAll('"', "&quot;").replaceAll("\n", "&#10;")}"`;
}

/** Control characters have no place in XML 1.0, escaped or not. */
function text(value: string): string {
  return (
    value
      // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is looked for
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, "\ufffd")
      .replaceAll("&", "&amp;")
      .replaceAll("<", "&lt;")
      .replaceAll(">", "&gt;")
  );
}
