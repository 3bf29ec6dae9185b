/** A matrix of shares as text: numbers where they fit into a terminal, shades where they do not. */
import type { Matrix } from "../formats/analysis-file.ts";

/** More columns than this would not fit with numbers. */
const numberedColumns = 24;

/** From the lowest to the highest value; they differ in ink, so that they print. */
const shades = " .:-=+*#%@";

/** Rows are layers, columns are `sources`; values in hundredths, or shades between the lowest and the highest. */
export function formatHeatmap(matrix: Matrix, sources: readonly number[]): string {
  return sources.length <= numberedColumns ? numbers(matrix, sources) : shaded(matrix, sources);
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
