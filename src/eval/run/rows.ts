/**
 * From samples to the rows of a result: a row for each task at each length, means over tasks for each length and each
 * group, and one over all. A cell is a task at a length; a mean over cells weighs each the same, as RULER and LongBench do.
 */
import { sum } from "../../base/sum.ts";
import type { EvalComparison, EvalRow } from "../../formats/eval-result.ts";
import type { Sample } from "../../formats/sample-journal.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { EvalTask } from "../item.ts";
import { type ComparisonSettings, compare, type PairedItem, type PairedStratum } from "../statistics/comparison.ts";
import { type Interval, studentInterval, wilsonInterval } from "../statistics/intervals.ts";
import { usualPower } from "../statistics/power.ts";
import { holm } from "../statistics/significance.ts";
import { stratumOf } from "../statistics/strata.ts";

export interface StatisticsSettings {
  /** Points as a share. */
  margin: number;
  alpha: number;
  permutations: number;
  seed: number;
}

type Endpoint = EvalRow["endpoint"];

/** The items of a task at a length, under all arms. */
interface Cell {
  name: string;
  task: EvalTask;
  endpoint: Endpoint;
  length: number | undefined;
  /** Samples of each item in the order of the arms. */
  items: Sample[][];
  tooLong: number;
  /** Items left out because an arm's output is empty. */
  dropped: number;
}

/**
 * @param items samples of each item in the order of the arms, items in a fixed order
 * @param arms the pattern of each arm, the baseline's first
 */
export function evalRows(
  items: readonly Sample[][],
  tasks: readonly EvalTask[],
  arms: readonly Pattern[],
  settings: StatisticsSettings,
): EvalRow[] {
  const maker = new RowMaker(arms, settings);
  const endpoints: Endpoint[] = items.some((samples) => hasChoices(samples))
    ? ["generation", "choices"]
    : ["generation"];
  return endpoints.flatMap((endpoint) => {
    const cells = cellsOf(items, tasks, endpoint);
    const taskRows = cells.map((cell) => maker.row([cell], { kind: "task", name: cell.name }));
    correct(taskRows);
    return [...taskRows, ...meanRows(cells, maker)];
  });
}

/** Rows over several cells, none that would repeat another one. */
function meanRows(cells: readonly Cell[], maker: RowMaker): EvalRow[] {
  const rows: EvalRow[] = [];
  const lengths = [...new Set(cells.flatMap(({ length }) => length ?? []))];
  if (lengths.length > 1) {
    for (const length of lengths) {
      const here = cells.filter((cell) => cell.length === length);
      if (here.length > 1) rows.push(maker.row(here, { kind: "length", name: `all tasks at ${length}`, length }));
    }
  }
  for (const [name, value] of groupsOf(cells)) {
    const here = cells.flatMap((cell) => {
      const members = cell.items.filter(([first]) => first?.item.groups?.[name] === value);
      return members.length === 0
        ? []
        : [{ ...cell, name: `${cell.name}/${name}=${value}`, items: members, tooLong: 0, dropped: 0 }];
    });
    rows.push(maker.row(here, { kind: "group", name: `${name}: ${value}`, group: { name, value } }));
  }
  if (cells.length > 1) rows.push(maker.row(cells, { kind: "overall", name: "overall" }));
  return rows;
}

/** Names and values of groups, in the order in which items bring them; those that every item is in say nothing. */
function groupsOf(cells: readonly Cell[]): [name: string, value: string][] {
  const values = new Map<string, Set<string>>();
  for (const [first] of cells.flatMap(({ items }) => items)) {
    for (const [name, value] of Object.entries(first?.item.groups ?? {})) {
      values.set(name, (values.get(name) ?? new Set()).add(value));
    }
  }
  return [...values].flatMap(([name, of]) =>
    of.size < 2 ? [] : [...of].map((value): [string, string] => [name, value]),
  );
}

function cellsOf(items: readonly Sample[][], tasks: readonly EvalTask[], endpoint: Endpoint): Cell[] {
  const cells = new Map<string, Cell>();
  for (const samples of items) {
    const [first] = samples;
    const task = tasks.find(({ name }) => name === first?.task);
    if (first === undefined || task === undefined) continue;
    if (endpoint === "choices" && first.item.choices === undefined) continue;
    const { length } = first;
    const name = length === undefined ? task.name : `${task.name} ${length}`;
    const cell = cells.get(name) ?? { name, task, endpoint, length, items: [], tooLong: 0, dropped: 0 };
    cells.set(name, cell);
    // Labels without log-probabilities had no room in the window.
    if (first.finish === "too-long" || (endpoint === "choices" && !hasChoices(samples))) cell.tooLong++;
    else if (endpoint === "generation" && task.dropsEmpty === true && samples.some(isEmpty)) cell.dropped++;
    else cell.items.push(samples);
  }
  const order = new Map(tasks.map(({ name }, index) => [name, index]));
  return [...cells.values()].sort(
    (left, right) =>
      (left.length ?? 0) - (right.length ?? 0) || (order.get(left.task.name) ?? 0) - (order.get(right.task.name) ?? 0),
  );
}

/** As LongBench v2's own code sees it: blanks are an output. */
function isEmpty({ output, thought }: Sample): boolean {
  return output === "" || thought === "";
}

function hasChoices(samples: readonly Sample[]): boolean {
  return samples.every((sample) => sample.choice_log_probabilities !== undefined);
}

/** Holm's correction over the tasks of each arm. */
function correct(rows: readonly EvalRow[]): void {
  const arms = rows[0]?.comparisons.length ?? 0;
  for (let arm = 0; arm < arms; arm++) {
    const comparisons = rows.flatMap((row) => row.comparisons[arm] ?? []);
    for (const [index, p] of holm(comparisons.map((one) => one.p)).entries()) {
      (comparisons[index] as EvalComparison).p_holm = p;
    }
  }
}

type RowName = Pick<EvalRow, "kind" | "name" | "length" | "group">;

class RowMaker {
  readonly #arms: readonly Pattern[];
  readonly #settings: ComparisonSettings;
  /** A cell's pairs for each arm, made once. */
  readonly #strata = new WeakMap<Cell, PairedStratum[]>();

  constructor(arms: readonly Pattern[], { margin, alpha, permutations, seed }: StatisticsSettings) {
    this.#arms = arms;
    this.#settings = { margin, power: { ...usualPower, alpha }, permutations, seed };
  }

  row(cells: readonly Cell[], name: RowName): EvalRow {
    const filled = cells.filter((cell) => cell.items.length > 0);
    const samples = filled.flatMap((cell) => cell.items);
    const [first] = cells;
    const metrics = new Set(cells.map(metricOf));
    return {
      ...name,
      ...(name.kind === "task" ? { task: first?.task.name, length: first?.length } : {}),
      endpoint: first?.endpoint ?? "generation",
      metric: metrics.size === 1 ? ([...metrics][0] as string) : "mean of tasks",
      scores: cells.every((cell) => kindOf(cell) === "binary") ? "binary" : "graded",
      items: samples.length,
      cells: cells.length,
      counts: {
        truncated: samples.filter(([one]) => one?.item.truncated !== undefined).length,
        too_long: sum(cells.map(({ tooLong }) => tooLong)),
        // Only some runs can have these.
        dropped_empty: sum(cells.map(({ dropped }) => dropped)) || undefined,
        underfilled: samples.filter(([one]) => isUnderfilled(one?.item.fill)).length || undefined,
      },
      arms: this.#arms.map((_, arm) => this.#armOf(filled, arm)),
      comparisons:
        samples.length === 0 ? [] : this.#arms.slice(1).map((_, other) => this.#comparison(filled, other + 1)),
    };
  }

  #armOf(cells: readonly Cell[], arm: number): EvalRow["arms"][number] {
    const samples = cells.flatMap(({ items }) => items.map((one) => one[arm] as Sample));
    const losses = cells.flatMap(({ items }) => {
      const known = items.flatMap((one) => lossOf(one[arm] as Sample) ?? []);
      return known.length === 0 ? [] : [sum(known) / known.length];
    });
    return {
      ...this.#scoreOf(cells, arm),
      gold_loss: losses.length === 0 ? undefined : sum(losses) / losses.length,
      empty: samples.filter(({ output }) => output.trim() === "").length,
      cut_off: samples.filter(({ finish }) => finish === "length" || finish === "window").length,
      unclosed: samples.some(({ thinking }) => thinking !== undefined)
        ? samples.filter(({ thinking }) => thinking?.closed === false).length
        : undefined,
    };
  }

  #scoreOf(cells: readonly Cell[], arm: number): { score: number; interval: Interval } {
    const confidence = 1 - this.#settings.power.alpha;
    const strata = cells.map((cell) =>
      stratumOf(
        cell.name,
        cell.items.map((one) => ({
          difference: scoreOf(cell, one[arm] as Sample),
          cluster: one[arm]?.item.cluster,
        })),
      ),
    );
    if (strata.length === 0) return { score: 0, interval: { low: 0, high: 1 } };
    const means = strata.map(
      ({ units }) => sum(units.map(({ total }) => total)) / sum(units.map((unit) => unit.items)),
    );
    const score = sum(means) / means.length;
    const units = sum(strata.map((stratum) => stratum.units.length));
    // A bounded score spreads no more than right and wrong do, so Wilson's holds for graded ones too.
    const wilson = wilsonInterval(Math.min(Math.max(score, 0), 1), units, confidence);
    const student = strata.length === 1 ? undefined : studentInterval(strata, confidence);
    // Scores that are all alike have no spread to go by.
    const known = student !== undefined && student.low < student.high;
    return { score, interval: known ? clamped(student) : wilson };
  }

  #comparison(cells: readonly Cell[], arm: number): EvalComparison {
    const strata = cells.map((cell) => this.#stratum(cell, arm));
    const samePattern = this.#arms[arm] === this.#arms[0];
    const samples = cells.flatMap(({ items }) => items);
    return {
      arm,
      ...compare(strata, this.#settings, samePattern),
      first_divergence: median(samples.flatMap((one) => firstDivergence(one[0] as Sample, one[arm] as Sample) ?? [])),
    };
  }

  #stratum(cell: Cell, arm: number): PairedStratum {
    const known = this.#strata.get(cell) ?? [];
    this.#strata.set(cell, known);
    known[arm] ??= {
      name: `${cell.name}/${cell.endpoint}`,
      scores: kindOf(cell),
      items: cell.items.map((samples) => pair(cell, samples[0] as Sample, samples[arm] as Sample)),
    };
    return known[arm];
  }
}

/** Generated prompts that have less of the length asked for than this are counted. */
const FULL = 0.9;

function isUnderfilled(fill: number | undefined): boolean {
  return fill !== undefined && fill < FULL;
}

function pair(cell: Cell, baseline: Sample, candidate: Sample): PairedItem {
  const choices = cell.endpoint === "choices";
  return {
    baseline: scoreOf(cell, baseline),
    candidate: scoreOf(cell, candidate),
    cluster: baseline.item.cluster,
    ...(baseline.item.choices === undefined ? {} : { chance: 1 / baseline.item.choices.length }),
    baselineLoss: lossOf(baseline),
    candidateLoss: lossOf(candidate),
    sameOutput: choices
      ? String(baseline.choice_log_probabilities) === String(candidate.choice_log_probabilities)
      : firstDivergence(baseline, candidate) === undefined,
  };
}

function metricOf({ task, endpoint }: Cell): string {
  return endpoint === "choices" ? "most likely choice" : task.metric;
}

function kindOf({ task, endpoint }: Cell): "binary" | "graded" {
  return endpoint === "choices" ? "binary" : task.scores;
}

/** Of a choice: is the gold label more likely than every other one? A tie is no. */
function scoreOf({ endpoint }: Cell, sample: Sample): number {
  if (endpoint === "generation") return sample.score;
  const { choice_log_probabilities: values = [], item } = sample;
  const gold = (item.choices ?? []).findIndex((label) => item.references.includes(label));
  return values.every((value, index) => index === gold || value < (values[gold] ?? Number.NEGATIVE_INFINITY)) ? 1 : 0;
}

function lossOf({ gold_loss: loss }: Sample): number | undefined {
  return loss === undefined || loss.tokens === 0 ? undefined : loss.nats / loss.tokens;
}

/** Position of the first generated token that differs; undefined where none does. */
function firstDivergence({ output_tokens: left }: Sample, { output_tokens: right }: Sample): number | undefined {
  const at = left.findIndex((token, index) => token !== right[index]);
  if (at >= 0) return at;
  return left.length === right.length ? undefined : left.length;
}

/** The lower one of two in the middle: a position that occurs. */
function median(values: readonly number[]): number | undefined {
  return values.toSorted((left, right) => left - right)[Math.floor((values.length - 1) / 2)];
}

function clamped({ low, high }: Interval): Interval {
  return { low: Math.max(0, low), high: Math.min(1, high) };
}
