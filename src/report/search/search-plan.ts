/** What a search would do, for `--dry-run`. */
import { formatCount, formatDuration } from "../quantities.ts";
import { formatFields } from "../text-table.ts";

export interface SearchPlanRecord {
  model: string;
  strategy: string;
  settings: Record<string, string | number | boolean>;
  /** Full layers. */
  targets: number[];
  /** To be measured, the baseline included; `exact` if that is the number and not a bound or a guess. */
  patterns: number;
  exact: boolean;
  sequences: number;
  held_out_sequences: number;
  /** Body layers of one sequence, with states of the base reused; `naive_layers` with full forward passes. */
  layers: number;
  naive_layers: number;
  seconds_per_evaluation: number;
  seconds: number;
  memory: string[];
}

export function formatSearchPlan(plan: SearchPlanRecord): string {
  const about = plan.exact ? "" : "about ";
  const settings = Object.entries(plan.settings).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
  const out = plan.held_out_sequences === 0 ? "" : `, ${plan.held_out_sequences} more held out`;
  return formatFields([
    ["Model", plan.model],
    ["Strategy", [plan.strategy, ...settings].join(", ")],
    ["Full layers", plan.targets.join(", ")],
    ["Patterns", `${about}${formatCount(plan.patterns)}, each on up to ${plan.sequences} sequences${out}`],
    [
      "Layer runs",
      `${about}${formatCount(plan.layers)} of the ${formatCount(plan.naive_layers)} of full forward passes`,
    ],
    ["One evaluation", `${formatDuration(plan.seconds_per_evaluation)}, every layer Full`],
    ["Time", `${plan.exact ? "about" : "very roughly"} ${formatDuration(plan.seconds)}`],
    ...plan.memory.map((line, index) => [index === 0 ? "Memory" : "", line] as const),
  ]);
}
