/** What `analyze` prints: heatmaps, the patterns side by side, what single layers cost. */
import type { AnalysisFile, Matrix, Statistic } from "../formats/analysis-file.ts";
import { besideIndexerBefore } from "./analysis-record.ts";
import { counted, formatCount, formatDuration, formatError, formatLoss, formatLossChange } from "./quantities.ts";
import { formatFields, formatTable, formatTabled, left, right, type Tabled, tabled, wrapWords } from "./text-table.ts";

/** Pairs that are listed: those that interact most. */
const LISTED_PAIRS = 12;

/** @param width columns of the terminal; undefined for a file or pipe */
export function formatAnalysisReport(file: AnalysisFile, width?: number): string {
  const words = (text: string): string => (width === undefined ? text : wrapWords(text, width).join("\n"));
  const heatmap = (title: string, { mean }: Statistic): string =>
    `${words(title)}\n${formatHeatmap(mean, file.sources, width)}`;
  return [
    formatFields(
      [
        ["Model", `${file.model.name}, ${file.model.layers} layers, index_topk ${file.model.index_topk}`],
        ["Pattern", file.index_topk_pattern],
        [
          "Queries",
          `${formatCount(file.queries)} that see at least index_topk keys, of ${formatCount(file.calibration.tokens)} tokens in ${counted(file.calibration.sequences, "sequence")}`,
        ],
        ["Time", formatDuration(file.seconds)],
      ],
      width,
    ),
    heatmap("Overlap: keys that both layers select, of 100", file.overlap),
    heatmap("Recall: attention mass of the row's layer on keys that the column's layer selects, of 100", file.recall),
    heatmap(
      "Similarity: cosine x 100 of the row's attention output with its own and with the column's selection",
      file.similarity,
    ),
    formatTabled(positionsTable(file), width),
    formatTabled(patternsTable(file), width),
    sensitivity(file),
    ...(file.pairs === undefined ? [] : [pairs(file.pairs)]),
  ].join("\n\n");
}

/** The heatmaps in a few numbers. */
export function positionsTable({ overlap, recall, similarity, sources }: AnalysisFile): Tabled {
  const buckets = overlap.by_position.map(({ from, to, queries, mean }, index) => ({
    keys: `${formatCount(from)} to ${formatCount(to)}`,
    queries,
    means: [mean, recall.by_position[index]?.mean ?? [], similarity.by_position[index]?.mean ?? []],
  }));
  const queries = buckets.reduce((total, bucket) => total + bucket.queries, 0);
  const all = { keys: "all", queries, means: [overlap, recall, similarity].map(({ mean }) => mean) };
  return tabled(
    "Each layer with the indexer before it, by position",
    [...buckets, all],
    [
      left("Visible keys", ({ keys }) => keys),
      right("Queries", (bucket) => formatCount(bucket.queries)),
      ...["Overlap", "Recall", "Similarity"].map((title, at) =>
        right<typeof all>(title, ({ means }) => besideIndexerBefore(means[at] ?? [], sources)),
      ),
    ],
  );
}

export function patternsTable({ patterns: compared }: AnalysisFile): Tabled {
  const title = "Patterns: loss on the calibration set, statistics of their Shared layers";
  return tabled(title, compared, [
    left("By", ({ origin }) => origin),
    right("Full", ({ full_layers: full }) => String(full)),
    right("Loss", ({ loss }) => formatLoss(loss)),
    right("Change", ({ origin, change }) => (origin === "model" ? "" : formatLossChange(change))),
    right("+-", ({ origin, change_standard_error: error }) => (origin === "model" ? "" : formatError(error))),
    right("Overlap", ({ mean_of_shared_layers: means }) => means?.overlap.toFixed(3) ?? ""),
    right("Recall", ({ mean_of_shared_layers: means }) => means?.recall.toFixed(3) ?? ""),
    right("Similarity", ({ mean_of_shared_layers: means }) => means?.similarity.toFixed(3) ?? ""),
    left("Pattern", ({ index_topk_pattern: letters }) => letters, { isCode: true, fold: "below", label: "" }),
  ]);
}

function sensitivity({ sensitivity: { base, flips } }: AnalysisFile): string {
  if (flips.length === 0) return `Sensitivity: ${base} has no Full layer to flip`;
  const table = formatTable(flips, [
    right("Layer", ({ layer }) => String(layer)),
    right("Loss", ({ loss }) => formatLoss(loss)),
    right("Change", ({ change }) => formatLossChange(change)),
    right("+-", ({ change_standard_error: error }) => formatError(error)),
  ]);
  return `Sensitivity: one more Shared layer in ${base}\n${table}`;
}

function pairs(all: NonNullable<AnalysisFile["pairs"]>): string {
  const strongest = [...all].sort((a, b) => Math.abs(b.interaction) - Math.abs(a.interaction)).slice(0, LISTED_PAIRS);
  const table = formatTable(strongest, [
    right("Layers", ({ layers }) => layers.join(" + ")),
    right("Change", ({ change }) => formatLossChange(change)),
    right("Interaction", ({ interaction }) => formatLossChange(interaction)),
    right("+-", ({ interaction_standard_error: error }) => formatError(error)),
  ]);
  const title = `Pairs: the ${strongest.length} of ${all.length} that interact most (change less the changes of both alone)`;
  return `${title}\n${table}`;
}

/** More columns than this would not fit with numbers. */
const numberedColumns = 24;

/** From the lowest to the highest value; they differ in ink, so that they print. */
const shades = " .:-=+*#%@";

/**
 * A matrix of shares: rows are layers, columns are `sources`; values in hundredths, or shades between the lowest and the highest.
 * @param width columns of the terminal, which numbers have to fit into
 */
export function formatHeatmap(matrix: Matrix, sources: readonly number[], width?: number): string {
  const isNarrow = width !== undefined && width < 6 + 4 * sources.length;
  return sources.length <= numberedColumns && !isNarrow ? numbers(matrix, sources) : shaded(matrix, sources);
}

function numbers(matrix: Matrix, sources: readonly number[]): string {
  const cells = matrix.map((row) => row.map((value) => (value === null ? "" : (100 * value).toFixed(0))));
  const width = Math.max(3, ...sources.map((source) => String(source).length));
  const line = (name: string, values: readonly string[]) =>
    `${name.padStart(5)} ${values.map((value) => value.padStart(width)).join(" ")}`.trimEnd();
  return [line("", sources.map(String)), ...cells.map((row, layer) => line(String(layer), row))].join("\n");
}

function shaded(matrix: Matrix, sources: readonly number[]): string {
  const values = matrix.flatMap((row, layer) =>
    row.filter((value, column) => value !== null && sources[column] !== layer),
  );
  const low = Math.min(...(values as number[]));
  const high = Math.max(...(values as number[]));
  const shade = (value: number | null): string => {
    if (value === null) return " ";
    const step = high > low ? (value - low) / (high - low) : 1;
    return shades[Math.min(shades.length - 1, Math.floor(step * shades.length))] ?? "@";
  };
  const rows = matrix.map((row, layer) => `${String(layer).padStart(5)} ${row.map(shade).join("")}`.trimEnd());
  return [
    `      columns: layers ${sources[0]} to ${sources.at(-1)}; "${shades}" from ${low.toFixed(2)} to ${high.toFixed(2)}`,
    ...rows,
  ].join("\n");
}
