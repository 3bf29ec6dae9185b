/** The rows of a batch whose selections are trained in one step: the same positions of every sequence. */
import type { Value } from "../graph-builder.ts";
import type { RowAngles } from "../layer/rope.ts";
import type { ModelGraph } from "../model-graph.ts";

export interface QueryRows {
  /** How many of each sequence. */
  count: number;
  /** Their places among all rows, int64 `[batch * count]`. */
  places: Value;
  /** Their positions, int64 `[count]`. */
  positions: Value;
  /** Their angles, row by row of the batch. */
  angles: RowAngles;
}

/** Cuts the rows out of `[batch * length, width]`: `[batch * count, width]`. */
export function rowsOf(graph: ModelGraph, { places }: QueryRows, all: Value): Value {
  return graph.node("Gather", [all, places], { axis: 0 });
}
