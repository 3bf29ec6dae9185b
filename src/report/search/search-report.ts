/** What `search` prints: the content of the pattern file as tables. */

import type { PatternFile } from "../../formats/pattern-schema.ts";
import { countFull } from "../../pattern/pattern.ts";
import { exhaustive } from "../../search/strategies/exhaustive.ts";
import {
  counted,
  formatCount,
  formatDuration,
  formatError,
  formatLoads,
  formatLoss,
  formatLossChange,
} from "../quantities.ts";
import {
  type Columns,
  formatFields,
  formatTable,
  formatTabled,
  left,
  right,
  type Tabled,
  tabled,
} from "../text-table.ts";

type FoundRecord = NonNullable<PatternFile["patterns"]>[number];
type StepRecord = NonNullable<FoundRecord["steps"]>[number];

/** Flipped layers of a step that are named one by one. */
const LISTED_FLIPS = 4;

/** @param columns of the terminal, within which tables and long lines of the summary are folded */
export function formatSearchReport(file: PatternFile, columns?: number): string {
  const steps = stepsTable(file);
  const sections = [
    steps === undefined ? "" : formatTabled(steps, columns),
    formatPatterns(file, columns),
    formatSources(file),
    formatSummary(file, columns),
  ];
  return sections.filter((section) => section !== "").join("\n\n");
}

/** The committed steps to the sparsest pattern: of greedy, or of another search. */
export function stepsOf({
  trajectory,
  patterns,
}: PatternFile): readonly (PatternFile["trajectory"][number] | StepRecord)[] {
  return trajectory.length > 0 ? trajectory : (patterns?.at(-1)?.steps ?? []);
}

/** @returns undefined for a search without steps */
export function stepsTable(file: PatternFile): Tabled | undefined {
  const steps = stepsOf(file);
  if (steps.length === 0) return undefined;
  const marks = new Set(steps.flatMap(({ lead }) => (lead === undefined ? [] : [noiseMark(lead.within_noise)])));
  const columns: Columns<(typeof steps)[number]> = [
    right("Step", (_, index) => String(index + 1)),
    right("Shared", (step) => ("flipped_layer" in step ? String(step.flipped_layer) : formatFlips(step))),
    right("Full", ({ index_topk_pattern: letters }) => String(countFull(letters))),
    right(objectiveName(file), ({ loss }) => formatLoss(loss)),
    right("Change", ({ loss, change }) => formatLossChange(change ?? loss - file.baseline_loss)),
    right("+-", ({ change_error: error }) => (error === undefined ? "" : formatError(error))),
    right("Lead", ({ lead }) => (lead === undefined ? "" : `${formatLoss(lead.nats)}${noiseMark(lead.within_noise)}`)),
    left("Pattern", ({ index_topk_pattern: letters }) => letters, { isCode: true, fold: "below", label: "" }),
  ];
  const again = steps.some(
    (step) => "flipped_layers" in step && step.flipped_layers.some((layer) => step.index_topk_pattern[layer] === "F"),
  );
  return tabled("", steps, columns, [
    ...(again ? ["F after a layer: Full again"] : []),
    ...(marks.has("~") ? ["~ ahead of the next best layer by less than twice the standard error"] : []),
    ...(marks.has("?")
      ? ["? whether that is more than noise is not known: a single sequence has no standard error"]
      : []),
  ]);
}

function noiseMark(withinNoise: boolean | null): string {
  if (withinNoise === null) return "?";
  return withinNoise ? "~" : " ";
}

/** What was wanted: one line a retention. */
function formatPatterns({ patterns = [], model, search }: PatternFile, width: number | undefined): string {
  const has = (field: keyof FoundRecord): boolean => patterns.some((one) => one[field] !== undefined);
  const table = formatTable(
    patterns,
    [
      right("Full", ({ full_layers: full }) => `${full}/${model.layers}`),
      right("Loss", ({ loss }) => formatLoss(loss)),
      right("Change", ({ change }) => formatLossChange(change)),
      right("+-", ({ change_error: error }) => formatError(error)),
      has("kl") && right("KL", ({ kl }) => (kl === undefined ? "" : formatLoss(kl))),
      has("held_out") &&
        right("Held out", ({ held_out: out }) => (out === undefined ? "" : formatLossChange(out.change))),
      has("held_out") && right("+-", ({ held_out: out }) => (out === undefined ? "" : formatError(out.change_error))),
      has("second_look") && right("Beyond greedy", formatRefinement),
      has("predicted_speedup") && right("Speed-up", ({ predicted_speedup: factor = 1 }) => `${factor.toFixed(2)}x`),
      left("Pattern", ({ index_topk_pattern: letters }) => letters, { fold: "below", label: "" }),
    ],
    width,
  );
  const notes =
    search.objective === "kl"
      ? "\nsearched by KL; Loss and Change are of the LM loss"
      : search.objective === "answer"
        ? "\nLoss, Change and KL are of the tokens that count: those of answers"
        : "";
  const across =
    search.settings?.across === "worst"
      ? "\nsearched by the worst source; Loss, Change and KL are weighted means of all sources"
      : "";
  return `${table}${notes}${across}`;
}

/** What each pattern changes on each source, beside the total. */
function formatSources({ patterns = [], model, calibration: { sources = [] } }: PatternFile): string {
  if (sources.length < 2) return "";
  const measured = patterns.flatMap((one) => (one.sources ?? []).map((own) => ({ full: one.full_layers, ...own })));
  return formatTable(measured, [
    right("Full", ({ full }) => `${full}/${model.layers}`),
    right("Weight", ({ source }) => (sources.find((known) => known.source === source)?.weight ?? 0).toFixed(2)),
    right("Loss", ({ loss }) => formatLoss(loss)),
    right("Change", ({ change }) => formatLossChange(change)),
    right("+-", ({ change_error: error }) => formatError(error)),
    left("Source", ({ source }) => source),
  ]);
}

/** How many patterns were tried without finding a better one, or what was gained on the search's own text and on held-out text. */
function formatRefinement({ second_look: look, found_by: by }: FoundRecord): string {
  if (look === undefined) return "";
  if (look.tried === 0) return "none left to try";
  if (look.gain === 0) return look.tried === undefined ? "none better" : `none of ${formatCount(look.tried)} better`;
  const out = look.held_out_gain === undefined ? "" : `, held out ${formatLossChange(-look.held_out_gain)}`;
  return `${formatLossChange(-look.gain)} (${by}${out})`;
}

function formatSummary(file: PatternFile, columns: number | undefined): string {
  const { search, patterns = [] } = file;
  const { rows, loads, body, naive_body: naive } = search.layer_executions;
  const total = rows === undefined ? 0 : rows.run + rows.prefix + rows.invariant + rows.kept;
  const looks = patterns.flatMap(({ second_look: look }) => look ?? []);
  const unseen = patterns.filter(({ second_look: look }) => (look?.gain ?? 0) > 0 && (look?.held_out_gain ?? 1) <= 0);
  return formatFields(
    [
      ["Pattern", file.index_topk_pattern],
      ["Full layers", `${countFull(file.index_topk_pattern)} of ${file.model.layers}`],
      [
        "Loss",
        `${formatLoss(file.loss)} nats per token, ${formatLossChange(file.loss - file.baseline_loss)} against every indexer`,
      ],
      ["Strategy", formatStrategy(search)],
      ["Optimum", isOptimum(search) && "every pattern was measured: none of its size loses less on these sequences"],
      ...serverFields(file),
      [
        "Speed-ups",
        file.predicted && `predicted, ${file.predicted.phase} at ${formatCount(file.predicted.context)} tokens`,
      ],
      [
        "Turning point",
        file.knee !== undefined && `${file.knee} Full layers: with fewer, the loss rises faster than on average`,
      ],
      [
        "Held out",
        unseen.length > 0 &&
          `greedy's pattern is no worse there at ${unseen.map((one) => one.full_layers).join(", ")} Full layers`,
      ],
      [
        "Evaluations",
        counted(search.evaluations, "pattern") +
          `${search.sequence_evaluations === undefined ? "" : `, ${counted(search.sequence_evaluations, "sequence")}`}` +
          ` in ${formatDuration(search.seconds)}${perEvaluation(search)}`,
      ],
      ["Loading", loads && formatLoads(loads)],
      ["Layers run", `${formatCount(body)} of the ${formatCount(naive)} of full forward passes`],
      ["Computed", rows !== undefined && total > 0 && formatRows(rows, total)],
      ...stabilityLines(file).map((line, at) => [at === 0 ? "Stability" : "", line] as const),
      [
        "Beyond greedy",
        looks.some(({ tried }) => tried !== 0) && describeRefinements(looks, file.calibration.sequences),
      ],
    ],
    columns,
  );
}

/** Whether every pattern of the wanted sizes was measured; files of 0.1 and earlier say it by their strategy alone. */
export function isOptimum({ optimum, strategy }: PatternFile["search"]): boolean {
  return optimum === true || strategy === exhaustive.name;
}

/** Whether other text would have led to the same patterns, a line for each; or why that is not known. */
export function stabilityLines({ search, patterns = [], calibration }: PatternFile): string[] {
  const known = patterns.flatMap(({ full_layers: full, stability }) =>
    stability === undefined ? [] : [`${full} Full: ${describeStability(stability, calibration.sequences)}`],
  );
  if (known.length > 0) return known;
  const reason = search.stability_unknown;
  return reason === undefined ? [] : [`unknown: ${stabilityReasons[reason]}`];
}

const stabilityReasons: Record<NonNullable<PatternFile["search"]["stability_unknown"]>, string> = {
  race: "the race measured most candidates on some of the sequences only",
  bound: "candidates were dropped before all sequences were measured",
  strategy: "the steps of this strategy cannot be taken again on resampled sequences",
  "few sequences": "fewer than 4 sequences say nothing of how they vary",
};

function describeStability(
  { resamples, agreement, sequences_needed: needed, sequences_tried: tried }: NonNullable<FoundRecord["stability"]>,
  sequences: number,
): string {
  const agreeing = `${Math.round(agreement * resamples)} of ${resamples} resamples agree`;
  const most = Math.round(0.9 * resamples);
  if (needed === undefined) return `${agreeing}; ${most} need over ${formatCount(tried)} sequences`;
  if (needed > sequences) return `${agreeing}; ${most} need about ${formatCount(needed)} sequences`;
  return `${agreeing}; ${formatCount(needed)} sequences are enough`;
}

/** Tokens times layers that ran, as a share of what full forward passes of every pattern would have run. */
function formatRows(rows: NonNullable<PatternFile["search"]["layer_executions"]["rows"]>, total: number): string {
  const percent = (part: number): string => `${Math.round((100 * part) / total)}%`;
  // Bases that are run for their states, and whole batches where a few sequences were asked for.
  if (rows.run > total)
    return `${percent(rows.run)} of the tokens x layers of full forward passes: keeping states cost more than it saved`;
  const spared = [
    [rows.prefix, "layers below the first flip"],
    [rows.kept, "states kept from candidates"],
    [rows.invariant, "positions below index_topk"],
  ] as const;
  const parts = spared.filter(([part]) => part > 0).map(([part, where]) => `${percent(part)} ${where}`);
  return `${percent(rows.run)} of the tokens x layers of full forward passes${parts.length === 0 ? "" : `; not needed: ${parts.join(", ")}`}`;
}

/** What refinement has tested, so that nobody takes it for a test of quality. */
function describeRefinements(looks: readonly NonNullable<FoundRecord["second_look"]>[], sequences: number): string {
  const tried = looks[0]?.tried;
  const more =
    tried === undefined ? "more patterns were" : `${counted(tried, "more pattern")} ${tried === 1 ? "was" : "were"}`;
  const better = looks.filter(({ gain }) => gain > 0).length;
  const sizes = looks.length === 1 ? "" : ` for ${better} of ${looks.length} sizes`;
  const found = better === 0 ? "none lost less than greedy's" : `and one lost less than greedy's${sizes}`;
  return `${more} tried on the same ${counted(sequences, "sequence")}, ${found}: a test of the search, not of quality`;
}

/** Who measured, how far that repeats, and which steps it leaves undecided. */
function serverFields({ server, trajectory, patterns = [] }: PatternFile): (readonly [string, string])[] {
  if (server === undefined) return [];
  const steps = [...trajectory, ...(patterns.at(-1)?.steps ?? [])];
  const open = steps.flatMap(({ repetition }, at) => ((repetition?.undecided.length ?? 0) > 0 ? [at + 1] : []));
  const repetitions = [...steps, ...patterns].flatMap(({ repetition }) => repetition ?? []);
  const rounds = repetitions.reduce((total, one) => total + one.rounds, 0);
  const most = Math.max(server.noise, ...repetitions.map(({ noise }) => noise ?? 0));
  return [
    ["Measured by", `${server.title}, ${server.served_model}, tokens from position ${server.scored_from} on`],
    [
      "Noise",
      `${server.noise.toExponential(1)} nats at the start, ${most.toExponential(1)} at most; candidates were measured again in ${formatCount(rounds)} rounds`,
    ],
    [
      "Undecided",
      open.length === 0
        ? "no step: every choice is ahead by more than the noise"
        : `step${open.length === 1 ? "" : "s"} ${open.join(", ")}: the lowest layer was taken of those that noise does not separate`,
    ],
    ...patterns.flatMap(({ index_topk_pattern: pattern, repetition }) => {
      const [closest, ...others] = repetition?.undecided ?? [];
      if (closest === undefined) return [];
      const more = others.length === 0 ? "" : ` and ${counted(others.length, "other")}`;
      return [
        ["Undecided", `${pattern} may be no better than ${closest}${more}: --repeats or more text may show`] as const,
      ];
    }),
  ];
}

function perEvaluation({ seconds, evaluations }: PatternFile["search"]): string {
  return evaluations === 0 || seconds === 0 ? "" : `, ${(seconds / evaluations).toPrecision(2)} s each`;
}

/** The layers that a step shares, and `7F` where it makes one Full again; an exhaustive search has one step over many layers. */
function formatFlips({ flipped_layers: layers, index_topk_pattern: pattern }: StepRecord): string {
  if (layers.length > LISTED_FLIPS) return `${layers.length} layers`;
  return layers.map((layer) => (pattern[layer] === "S" ? String(layer) : `${layer}F`)).join(" ");
}

/** `width 3`, `direction forward`. */
export function settingWords(settings: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(settings).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
}

/** `beam, width 3, direction forward`. */
export function formatStrategy({ strategy, objective, settings = {} }: PatternFile["search"]): string {
  const objectiveWords = objective === undefined || objective === "nll" ? [] : [`objective ${objective}`];
  return [strategy, ...objectiveWords, ...settingWords(settings)].join(", ");
}

/** What the losses of its steps are called. */
function objectiveName({ search }: PatternFile): string {
  return search.objective === "kl" ? "KL" : "Loss";
}
