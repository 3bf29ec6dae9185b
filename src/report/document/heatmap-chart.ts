/** A statistic of pairs of layers as a map: rows are the layers that would share, columns those they would share from. */
import type { Matrix } from "../../formats/analysis-file.ts";
import { parsePattern, sourceLayer } from "../../pattern/pattern.ts";
import { type Chart, drawChart } from "./chart.ts";
import { ringDark, ringLight } from "./palette.ts";

const SIZE = 300;

/**
 * @param title what is mapped, for the legend and for readers who do not see it
 * @param pattern its Shared layers are marked at the layer that they share from
 */
export function heatmapChart(
  name: string,
  title: string,
  matrix: Matrix,
  sources: readonly number[],
  pattern: string | undefined,
): Promise<Chart> {
  const cells = matrix.flatMap((row, layer) =>
    sources.flatMap((source, column) => {
      const value = row[column];
      // A layer with itself is 1 by definition, and would swallow the scale.
      return value == null || source === layer ? [] : [{ layer, source, value }];
    }),
  );
  const shared = pattern === undefined ? [] : sharedPairs(pattern);
  const step = Math.max(3, Math.floor(SIZE / matrix.length));
  const every = matrix.length > 16 ? 10 : matrix.length > 8 ? 2 : 1;
  const layerAxis = {
    domain: false,
    ticks: false,
    labelAngle: 0,
    values: matrix.map((_, layer) => layer).filter((layer) => layer % every === 0),
  };
  // All layers on both sides, so that maps stand beside each other in one size.
  const scale = { domain: matrix.map((_, layer) => layer), padding: 0 };
  const position = {
    x: { field: "source", type: "ordinal" as const, title: "selection of layer", axis: layerAxis, scale },
    y: { field: "layer", type: "ordinal" as const, title: "used in layer", axis: layerAxis, scale },
  };
  return drawChart(name, `${title} of pairs of layers`, {
    width: { step },
    height: { step },
    layer: [
      {
        data: { values: cells },
        mark: { type: "rect" },
        encoding: {
          ...position,
          color: {
            field: "value",
            type: "quantitative",
            title,
            scale: { scheme: "cividis", zero: false },
            legend: { orient: "top", gradientLength: 160, format: ".2f", titleLimit: 300 },
          },
        },
      },
      ...[
        { stroke: ringDark, strokeWidth: 4 },
        { stroke: ringLight, strokeWidth: 2 },
      ].map((line) => ({
        data: { values: shared },
        mark: { type: "point" as const, filled: false, size: Math.min(60, step * step * 0.4), opacity: 1, ...line },
        encoding: position,
      })),
    ],
  });
}

/** How the loss of two flips differs from the sum of both: below 0 they help each other. */
export function interactionChart(
  name: string,
  pairs: readonly { layers: readonly [number, number]; interaction: number }[],
  layers: number,
): Promise<Chart> {
  const values = pairs.flatMap(({ layers: [first, second], interaction }) => [
    { layer: first, source: second, value: interaction },
    { layer: second, source: first, value: interaction },
  ]);
  const largest = Math.max(...values.map(({ value }) => Math.abs(value)));
  const step = Math.max(3, Math.floor(SIZE / layers));
  const axis = { domain: false, ticks: false, labelAngle: 0 };
  return drawChart(name, "Interaction of pairs of flips", {
    data: { values },
    width: { step },
    height: { step },
    mark: { type: "rect" },
    encoding: {
      x: { field: "source", type: "ordinal", title: "layer", axis, scale: { padding: 0 } },
      y: { field: "layer", type: "ordinal", title: "layer", axis, scale: { padding: 0 } },
      color: {
        field: "value",
        type: "quantitative",
        title: "interaction, nats per token",
        scale: { scheme: "blueorange", domain: [-largest, largest] },
        legend: { orient: "top", gradientLength: 160, format: ".2~g", titleLimit: 300 },
      },
    },
  });
}

function sharedPairs(pattern: string): { layer: number; source: number }[] {
  const checked = parsePattern(pattern);
  return [...checked].flatMap((letter, layer) =>
    letter === "S" ? [{ layer, source: sourceLayer(checked, layer) }] : [],
  );
}
