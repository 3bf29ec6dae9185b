/** `indexcache search --dry-run`: what there is to do, and how long one evaluation says that it will take. */
import { formatSearchPlan, type SearchPlanRecord } from "../../report/search/search-plan.ts";
import type { PatternEvaluator } from "../../runtime/measurement.ts";
import type { Terminal } from "../console/terminal.ts";
import type { SearchWork } from "./search.ts";

interface Planned extends SearchWork {
  evaluator: PatternEvaluator;
  json: boolean;
  terminal: Terminal;
  signal: AbortSignal;
}

export async function showPlan(work: Planned): Promise<void> {
  const { method, foreseen, space, targets, sequences, heldOut, evaluator, json, terminal, signal } = work;
  const { seconds } = await evaluator.evaluate(space.start, { sequences, signal });
  const layers = space.start.length;
  const perLayer = seconds / (layers * sequences.length);
  const record: SearchPlanRecord = {
    model: work.identity.name,
    strategy: method.strategy.name,
    settings: work.settings,
    targets,
    patterns: foreseen.evaluations,
    exact: foreseen.exact,
    sequences: sequences.length,
    held_out_sequences: heldOut.length,
    layers: foreseen.layers,
    naive_layers: foreseen.evaluations * layers * sequences.length,
    seconds_per_evaluation: seconds,
    seconds: perLayer * foreseen.layers,
    memory: evaluator.plan,
  };
  terminal.result(json ? JSON.stringify(record, null, 2) : formatSearchPlan(record));
}
