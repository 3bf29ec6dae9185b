/** Loss against retention. */
import { type Chart, drawChart, errorBar, levelLine, seriesEncoding } from "./chart.ts";
import { faintInk } from "./palette.ts";

export interface LossPoint {
  /** Who found the pattern. */
  series: string;
  full: number;
  /** Nats per token above the model's own pattern. */
  change: number;
  /** Of the change; null or undefined where it is not known. */
  error: number | null | undefined;
  /** Is the point one of a way that a search went, and to be joined with its neighbours? */
  joined: boolean;
}

/** Changes below this are drawn on a linear scale, above it on a logarithmic one. */
const LINEAR_BELOW = 0.01;

/** Between the points of two series, in layers. */
const DODGE = 0.11;

const ticks = [0, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3];

/** @param tried every pattern that was measured, drawn small behind the points */
export function lossChart(
  name: string,
  points: readonly LossPoint[],
  tried: readonly { full: number; change: number }[],
  layers: number,
): Promise<Chart> {
  const series = [...new Set(points.map((point) => point.series))];
  const values = points.map(({ error, ...rest }) => {
    // Searches often agree: series stand beside each other, not on each other.
    const at = rest.full - DODGE * series.indexOf(rest.series);
    return { ...rest, at, ...errorBar(rest.change, error) };
  });
  const highest = Math.max(...tried.map(({ change }) => change), ...values.map(({ change, high = change }) => high));
  const lowest = Math.min(0, ...tried.map(({ change }) => change), ...values.map(({ change, low = change }) => low));
  const fewest = Math.min(...[...points, ...tried].map(({ full }) => full));
  const x = {
    field: "at",
    type: "quantitative" as const,
    title: `Full layers of ${layers}`,
    scale: { reverse: true, domain: [fewest - DODGE * series.length, layers + DODGE], nice: false },
    axis: { tickMinStep: 1, grid: false, labelOverlap: true },
  };
  const y = {
    field: "change",
    type: "quantitative" as const,
    title: "loss change, nats per token",
    scale: { type: "symlog" as const, constant: LINEAR_BELOW, domain: [lowest, highest], nice: false },
    axis: {
      values: [...ticks.map((tick) => -tick), ...ticks].filter((tick) => tick >= lowest && tick <= highest),
      format: "~g",
    },
  };
  const { color, shape } = seriesEncoding("series", series);
  return drawChart(name, `Loss against the number of Full layers, for ${series.join(", ")}`, {
    data: { values },
    width: 440,
    height: 300,
    encoding: { x },
    layer: [
      {
        data: { values: tried.map(({ full: at, change }) => ({ at, change })) },
        mark: { type: "point", filled: true, size: 14, opacity: 0.45, color: faintInk },
        encoding: { y },
      },
      levelLine(0),
      {
        transform: [{ filter: "datum.joined" }],
        mark: { type: "line", strokeWidth: 1.5 },
        encoding: { y, color, order: { field: "full", sort: "descending" } },
      },
      {
        transform: [{ filter: "isValid(datum.low)" }],
        mark: { type: "rule", strokeWidth: 1.5, color: faintInk },
        encoding: { y: { ...y, field: "low" }, y2: { field: "high" }, color },
      },
      { mark: { type: "point", filled: true, size: 60, opacity: 1 }, encoding: { y, color, shape } },
    ],
  });
}
