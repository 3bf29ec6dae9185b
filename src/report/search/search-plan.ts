/** What a search would do, for `--dry-run`. */
import type { WeightNeeds } from "../../runtime/loss/weight-needs.ts";
import type { Rehearsal } from "../../search/events.ts";
import type { PatternSpace } from "../../search/space.ts";
import type { SearchMethod } from "../../search/strategy.ts";
import { counted, formatBytes, formatCount, formatDuration } from "../quantities.ts";
import { type Field, formatFields } from "../text-table.ts";
import { settingWords } from "./search-report.ts";

/** A search that is planned. */
interface PlannedSearch {
  identity: { name: string };
  method: SearchMethod;
  settings: Record<string, string | number | boolean>;
  /** Full layers. */
  targets: readonly number[];
  foreseen: Rehearsal;
  space: PatternSpace;
  sequences: readonly number[];
  heldOut: readonly number[];
}

/** What is known beside it. */
interface PlanFacts {
  /** Of sequences that no text has been cut into: by --sequence-length, or the default. */
  sequence_length?: number;
  /** Measured; absent where the model cannot be run here. */
  seconds_per_evaluation?: number;
  seconds?: number;
  memory?: string[];
  /** Where layers are loaded in turn, or the model is not here. */
  weights?: WeightsRecord | undefined;
}

type SearchPlanRecord = ReturnType<typeof searchPlanRecord>;
type WeightsRecord = ReturnType<typeof weightsRecord>;

/** The `--json` form. */
export function searchPlanRecord(work: PlannedSearch, facts: PlanFacts) {
  const { method, foreseen, space, targets, sequences, heldOut } = work;
  return {
    model: work.identity.name,
    strategy: method.strategy.name,
    settings: work.settings,
    targets,
    /** To be measured, the baseline included; `exact` if that is the number and not a bound or a guess. */
    patterns: foreseen.evaluations,
    exact: foreseen.exact,
    /** Every pattern of the wanted sizes is among them. */
    optimum: foreseen.isOptimum || undefined,
    sequences: sequences.length,
    held_out_sequences: heldOut.length,
    /** Body layers of one sequence, with states of the base reused; `naive_layers` with full forward passes. */
    layers: foreseen.layers,
    naive_layers: foreseen.evaluations * space.start.length * sequences.length,
    ...facts,
  };
}

/** How weights are gone through. */
interface WeightPasses {
  /** At most. */
  passes: number;
  seconds_per_pass: number | undefined;
  /** Whether `seconds_per_pass` was measured here, or assumes 3 GB/s of reading and 0.3 GB/s of packing. */
  measured: boolean;
  known_from: "weights" | "config.json";
  /** Of matrix products with weights, for one sequence in one layer. */
  teraflops_per_layer_run?: number;
}

/** What weights take, in bytes; loaded ones in float32 on a CPU, experts twice. */
export function weightsRecord(needs: WeightNeeds, passes: WeightPasses) {
  const { stored, loaded, largestLayer, whole, least, memory, inTurn } = needs;
  return {
    stored_bytes: stored,
    loaded_bytes: loaded,
    layer_stored_bytes: largestLayer.stored,
    layer_loaded_bytes: largestLayer.loaded,
    /** What the processes take with the whole model, and with a layer at a time. */
    whole_bytes: whole,
    least_bytes: least,
    /** What they may have. */
    memory_bytes: memory,
    layers_that_stay: inTurn?.stay,
    /** Read from the files in one pass over the layers. */
    bytes_per_pass: inTurn?.pass.stored,
    loaded_per_pass: inTurn?.pass.loaded,
    ...passes,
  };
}

export function formatSearchPlan(plan: SearchPlanRecord, columns?: number): string {
  const about = plan.exact ? "" : "about ";
  const out = plan.held_out_sequences === 0 ? "" : `, ${plan.held_out_sequences} more held out`;
  return formatFields(
    [
      ["Model", plan.model],
      ["Strategy", [plan.strategy, ...settingWords(plan.settings)].join(", ")],
      ["Full layers", plan.targets.join(", ")],
      ["Patterns", `${about}${formatCount(plan.patterns)}, each on up to ${counted(plan.sequences, "sequence")}${out}`],
      [
        "Optimum",
        plan.optimum === true && "every pattern of the wanted sizes is measured: the best is the optimum on this text",
      ],
      [
        "Layer runs",
        `${about}${formatCount(plan.layers)} of the ${formatCount(plan.naive_layers)} of full forward passes`,
      ],
      [
        "Sequences",
        plan.sequence_length !== undefined &&
          `${formatCount(plan.sequence_length)} tokens each (assumed: no text was read)`,
      ],
      [
        "One evaluation",
        plan.seconds_per_evaluation !== undefined && `${formatDuration(plan.seconds_per_evaluation)}, every layer Full`,
      ],
      [
        "Time",
        plan.seconds !== undefined && `${plan.exact ? "about" : "very roughly"} ${formatDuration(plan.seconds)}`,
      ],
      ...(plan.weights === undefined ? [] : weightFields(plan.weights, plan)),
      ...(plan.memory ?? []).map((line, index) => [index === 0 ? "Memory" : "", line] as const),
    ],
    columns,
  );
}

function weightFields(weights: WeightsRecord, { layers, patterns }: SearchPlanRecord): Field[] {
  const { bytes_per_pass: pass, seconds_per_pass: seconds, passes, teraflops_per_layer_run: work } = weights;
  const estimated = weights.known_from === "config.json" ? " (estimated from config.json)" : "";
  const memory = formatBytes(weights.memory_bytes);
  const place =
    pass !== undefined
      ? `a layer at a time in ${memory}; ${weights.layers_that_stay ?? 0} layers stay`
      : weights.whole_bytes <= weights.memory_bytes
        ? `whole in ${memory}`
        : `not in ${memory}, not even a layer at a time`;
  return [
    ["Weights", `${formatBytes(weights.stored_bytes)} stored, ${formatBytes(weights.loaded_bytes)} loaded${estimated}`],
    [
      "Largest layer",
      `${formatBytes(weights.layer_stored_bytes)} stored, ${formatBytes(weights.layer_loaded_bytes)} loaded`,
    ],
    ["Needs", `${formatBytes(weights.whole_bytes)} whole, ${formatBytes(weights.least_bytes)} a layer at a time`],
    ["Runs", place],
    [
      "Passes",
      pass !== undefined && `at most ${formatCount(passes)} over the layers, for ${counted(patterns, "pattern")}`,
    ],
    ["Reading", pass !== undefined && `${formatBytes(pass)} a pass, ${formatBytes(pass * passes)} in all`],
    [
      "Loading",
      seconds !== undefined &&
        `${formatDuration(seconds)} a pass, ${formatDuration(seconds * passes)} in all ` +
          (weights.measured ? "(measured here)" : "(assumed: 3 GB/s read, 0.3 GB/s packed)"),
    ],
    [
      "Computing",
      work !== undefined &&
        `${formatCount(Math.ceil(work * layers))} TFLOP: ${work.toPrecision(3)} a layer run (weights alone)`,
    ],
  ];
}
