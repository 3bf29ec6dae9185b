/** `--fail-on`: what makes an evaluation fail. */
import type { EvalComparison, EvalResult, EvalRow } from "../../formats/eval-result.ts";

export const gates = ["inferior", "inconclusive"] as const;
export type Gate = (typeof gates)[number];

/**
 * A row fails where it is inferior. Under `inconclusive` the primary row must be non-inferior or identical as well: that is
 * the one of all tasks together, because single tasks seldom have the items for it.
 */
export function failsGate({ rows }: EvalResult, row: EvalRow, { verdict }: EvalComparison, gate: Gate): boolean {
  if (verdict === "inferior") return true;
  return gate === "inconclusive" && verdict === "inconclusive" && row === primaryRow(rows);
}

/** One sentence for each row that fails. */
export function gateFailures(result: EvalResult, gate: Gate): string[] {
  return result.rows.flatMap((row) =>
    row.comparisons
      .filter((comparison) => failsGate(result, row, comparison, gate))
      .map(({ arm, verdict }) => `${result.arms[arm]?.name} is ${verdict} on ${row.name}`),
  );
}

/** All tasks together; where there is one task at one length, its own row. */
function primaryRow(rows: readonly EvalRow[]): EvalRow | undefined {
  const generated = rows.filter(({ endpoint }) => endpoint === "generation");
  return generated.find(({ kind }) => kind === "overall") ?? generated[0];
}
