/** Loss against the number of Full layers, on the scale of the report: linear below 0.01 nats, logarithmic above. */
import { Box, Text } from "ink";
import type { ReactElement } from "react";
import { formatLossChange } from "../report/quantities.ts";
import { columns } from "./bars.ts";

/** As in `report/document/loss-chart.ts`. */
const LINEAR_BELOW = 0.01;
/** Columns of the numbers on the axis. */
const AXIS = 10;

export interface CurvePoint {
  full: number;
  /** Nats per token above the model's own pattern. */
  change: number;
}

/**
 * @param points one for each size, the most Full layers first
 * @param lines of the columns alone: a title stands above them, the sizes below
 */
export function LossCurve(props: { points: readonly CurvePoint[]; lines: number; width: number }): ReactElement {
  const { points, lines, width } = props;
  const room = Math.max(1, width - AXIS);
  const shown = points.slice(-room);
  const highest = Math.max(...shown.map(({ change }) => change), 0);
  const top = scaled(highest);
  const heights = shown.map(({ change }) => (top > 0 ? Math.max(0, scaled(change)) / top : 0));
  const each = Math.max(1, Math.min(6, Math.floor(room / shown.length)));
  const bars = columns(heights, lines, each);
  const first = `${shown[0]?.full ?? ""} Full`;
  const last = `${shown.at(-1)?.full ?? ""}`;
  const gap = Math.max(1, shown.length * each - (each > 1 ? 1 : 0) - first.length - last.length);
  return (
    <Box flexDirection="column">
      <Text wrap="truncate-end">
        {width < 64 ? "loss by Full layers" : "loss above every indexer, by Full layers (log scale above 0.01)"}
      </Text>
      {bars.map((bar, line) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a line's place is its identity
        <Text key={line}>
          <Text dimColor>
            {(line === 0 && top > 0 ? formatLossChange(highest) : line === lines - 1 ? "0" : "").padStart(
              AXIS - 1,
            )}{" "}
          </Text>
          {bar}
        </Text>
      ))}
      <Text dimColor>{`${" ".repeat(AXIS)}${first}${" ".repeat(gap)}${last}`}</Text>
    </Box>
  );
}

function scaled(change: number): number {
  return Math.sign(change) * Math.log1p(Math.abs(change) / LINEAR_BELOW);
}
