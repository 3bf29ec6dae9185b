import { expect, test } from "vitest";
import { formatHeatmap } from "../../src/report/analysis-report.ts";

test("numbers where they fit", () => {
  expect(
    formatHeatmap(
      [
        [1, null],
        [0.456, 1],
      ],
      [0, 1],
    ),
  ).toBe(["        0   1", "    0 100", "    1  46 100"].join("\n"));
});

test("shades where they do not, from the lowest to the highest but the diagonal", () => {
  const layers = Array.from({ length: 30 }, (_, layer) => layer);
  const matrix = layers.map((row) => layers.map((column) => 1 - Math.abs(row - column) / 30));
  const lines = formatHeatmap(matrix, layers).split("\n");
  expect(lines[0]).toContain("columns: layers 0 to 29");
  expect(lines[0]).toContain("from 0.03 to 0.97");
  expect(lines[1]).toMatch(/^ {4}0 @@/);
  expect(lines).toHaveLength(31);
  expect(lines[30]).toMatch(/^ {3}29 .*@$/);
});

test("numbers become shades where the terminal is too narrow for them", () => {
  const layers = Array.from({ length: 20 }, (_, layer) => layer);
  const matrix = layers.map((row) => layers.map((column) => 1 - Math.abs(row - column) / 20));
  const width = (columns?: number) =>
    Math.max(
      ...formatHeatmap(matrix, layers, columns)
        .split("\n")
        .map((line) => line.length),
    );
  expect(width()).toBe(85);
  expect(width(80)).toBeLessThanOrEqual(80);
});
