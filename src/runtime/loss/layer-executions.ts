/** Adds up what evaluations took, over sequences and over processes. */
import type { LayerExecutions, LayerLoads, RowExecutions } from "../measurement.ts";

export interface CountedExecutions extends LayerExecutions {
  rows: RowExecutions;
}

export function noExecutions(): CountedExecutions {
  return { body: 0, indexer: 0, naiveBody: 0, naiveIndexer: 0, rows: { run: 0, prefix: 0, invariant: 0, kept: 0 } };
}

export function sumExecutions(parts: Iterable<CountedExecutions>): CountedExecutions {
  const total = noExecutions();
  for (const { rows, loads, ...layers } of parts) {
    for (const key of Object.keys(layers) as (keyof typeof layers)[]) total[key] += layers[key];
    if (loads !== undefined) {
      total.loads ??= { passes: 0, layers: 0, bytes: 0, seconds: 0 };
      for (const key of Object.keys(loads) as (keyof LayerLoads)[]) total.loads[key] += loads[key];
    }
    for (const key of Object.keys(rows) as (keyof RowExecutions)[]) total.rows[key] += rows[key];
  }
  return total;
}
