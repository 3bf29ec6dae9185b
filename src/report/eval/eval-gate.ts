/** `--fail-on`: what makes an evaluation fail. */
import type { EvalComparison, EvalResult, EvalRow } from "../../formats/eval-result.ts";

export const gates = ["inferior", "inconclusive"] as const;
export type Gate = (typeof gates)[number];

/** No loss could have shown, whatever the pattern does: the baseline has none to lose, or the pattern never acted. */
export function cannotTell({ verdict, note }: EvalComparison): boolean {
  return verdict === "inconclusive" && (note === "floor" || note === "no effect");
}

/**
 * A row fails where it is inferior. Under `inconclusive` the primary row must be non-inferior or identical as well: that is
 * the one of all tasks together, because single tasks seldom have the items for it. If that one cannot tell, the gate could
 * not have failed, and does under either.
 */
export function failsGate({ rows }: EvalResult, row: EvalRow, comparison: EvalComparison, gate: Gate): boolean {
  if (comparison.verdict === "inferior") return true;
  const isOpen = gate === "inconclusive" && comparison.verdict === "inconclusive";
  return (isOpen || cannotTell(comparison)) && row === primaryRow(rows);
}

/** One sentence for each row that fails. */
export function gateFailures(result: EvalResult, gate: Gate): string[] {
  return result.rows.flatMap((row) =>
    row.comparisons
      .filter((comparison) => failsGate(result, row, comparison, gate))
      .map((comparison) => {
        const name = result.arms[comparison.arm]?.name;
        return cannotTell(comparison)
          ? `${row.name} cannot tell whether ${name} loses anything (${comparison.note})`
          : `${name} is ${comparison.verdict} on ${row.name}`;
      }),
  );
}

/** All tasks together; where there is one task at one length, its own row. */
export function primaryRow(rows: readonly EvalRow[]): EvalRow | undefined {
  const generated = rows.filter(({ endpoint }) => endpoint === "generation");
  return generated.find(({ kind }) => kind === "overall") ?? generated[0];
}
