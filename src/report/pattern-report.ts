/** What `pattern` prints: findings of a check, and what each engine makes of the same request. */

import type { Finding } from "../engines/check.ts";
import type { Dialect } from "../engines/dialect.ts";
import { dialects, engineNames } from "../engines/engines.ts";
import type { IndexFields } from "../engines/index-fields.ts";
import type { ServedModel } from "../engines/served-model.ts";
import { formatTable, left, right } from "./text-table.ts";

/** What one engine would run. */
export interface EngineOutcome {
  engine: string;
  /** One letter for each layer with an indexer; absent where the engine would not serve that. */
  index_topk_pattern?: string;
  full_layers?: number[];
  failure?: string;
}

/** Errors first. */
export function formatFindings(findings: readonly Finding[]): string {
  return (["error", "warning"] as const)
    .flatMap((severity) => findings.filter((finding) => finding.severity === severity))
    .map(({ severity, message, waysOut }) =>
      [`${severity.padEnd(7)}  ${message}`, ...(waysOut ?? []).map((way) => `${" ".repeat(9)}- ${way}`)].join("\n"),
    )
    .join("\n");
}

/**
 * What every engine makes of these fields, on top of what the model's config says.
 * @param chosen the rules of one engine in another release than its newest
 */
export function engineOutcomes(fields: IndexFields, model: ServedModel, chosen?: Dialect): EngineOutcome[] {
  return engineNames.map((engine) => outcome(chosen?.engine === engine ? chosen : dialects[engine], fields, model));
}

export function formatOutcomes(outcomes: readonly EngineOutcome[], model: ServedModel): string {
  return formatTable(outcomes, [
    left("Engine", ({ engine }) => engine),
    right("Full", ({ full_layers: full }) => (full === undefined ? "" : `${full.length} of ${model.indexers.length}`)),
    left("Layers that it would run", ({ index_topk_pattern: letters, failure }) => letters ?? failure ?? ""),
  ]);
}

/** The rules behind the outcomes. */
export function formatFacts(): string {
  return engineNames
    .map((engine) => {
      const { title, readFrom, facts } = dialects[engine];
      return [
        `${title}, read from ${readFrom}`,
        `  gate            ${facts.gate}`,
        `  short pattern   ${facts.shortPattern}`,
        `  prediction      ${facts.prediction}`,
        `  pipeline        ${facts.pipeline}`,
      ].join("\n");
    })
    .join("\n");
}

function outcome(dialect: Dialect, fields: IndexFields, model: ServedModel): EngineOutcome {
  const { engine } = dialect;
  const refusal = dialect.refusal(model);
  if (refusal !== undefined) return { engine, failure: refusal };
  const schedule = dialect.schedule(fields, model);
  if ("failure" in schedule) return { engine, failure: schedule.failure };
  const full = model.indexers.filter((_, ordinal) => schedule.letters[ordinal] === "F");
  return { engine, index_topk_pattern: schedule.letters, full_layers: full };
}
