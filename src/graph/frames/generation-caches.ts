/**
 * How a graph has its caches. *Growing*, on a CPU: the rows so far come in as they are and new ones go out
 * (`full-model.ts`). Generation graphs have caches of a fixed size. *Resident*: the rows live in the session, on the device,
 * from one run to the next, and nothing of them crosses to the host. ONNX has no state, but an initializer is a buffer, and
 * PagedAttention writes new rows into its cache in place: here it is asked for nothing else. It takes float16 only. *Fed*:
 * each run is given all rows and returns the new ones.
 */
import type { Value } from "../graph-builder.ts";
import type { ModelGraph } from "../model-graph.ts";

export type CacheForm = "growing" | "fed" | "resident";

/** Capacities, and the rows that a run reads, are multiples of this: PagedAttention's block. */
export const cacheBlock = 256;
/** More rows than a run brings. */
export const maxRowsPerRun = 16384;

/** A cache with the rows of this run in it. */
export interface WrittenCache {
  /** Every row, `[capacity, width]`. */
  all: () => Value;
  /** The rows that this run reads, `[readable, width]`. */
  readable: () => Value;
}

/** Which cache, and how wide its rows are; no two caches of a graph have the same number. */
export interface CacheName {
  name: string;
  number: number;
  width: number;
}

export interface CacheContext {
  form: Exclude<CacheForm, "growing">;
  capacity: number;
  /** int32 `[rows]`: the rows' places. */
  slots: Value;
  /** int32 `[2]`: 0 and the number of rows. */
  rowEnds: Value;
}

/** Puts `rows` `[rows, width]` in their places in a cache. `blocks`: readable rows / `cacheBlock`, int64 `[1]`. */
export function writeCache(
  graph: ModelGraph,
  context: CacheContext,
  cache: CacheName,
  rows: Value,
  blocks: Value,
): WrittenCache {
  return context.form === "resident"
    ? writeResident(graph, context, cache, rows, blocks)
    : writeFed(graph, cache.name, rows, blocks);
}

function writeFed(graph: ModelGraph, name: string, rows: Value, blocks: Value): WrittenCache {
  const column = graph.node("Unsqueeze", ["position_ids", graph.int([1])]);
  const places = graph.node("Expand", [column, graph.node("Shape", [rows])]);
  const all = graph.node("ScatterElements", [name, places, rows], { axis: 0 });
  const end = () => graph.node("Mul", [blocks, graph.int([cacheBlock])]);
  return {
    all: () => all,
    readable: () => graph.node("Slice", [all, graph.int([0]), end(), graph.int([0])]),
  };
}

/**
 * PagedAttention in its latent layout with one head and one value column, a window of one key and a block table that
 * stays in the first block: the attention is a few dot products, the write is what counts.
 */
function writeResident(
  graph: ModelGraph,
  { capacity, slots, rowEnds }: CacheContext,
  { name, number, width }: CacheName,
  rows: Value,
  blocks: Value,
): WrittenCache {
  const cache = graph.state(name, [capacity / cacheBlock, cacheBlock, 1, width], number);
  const table = graph.int32(
    Array.from({ length: maxRowsPerRun / cacheBlock }, () => 0),
    [1, maxRowsPerRun / cacheBlock],
  );
  const written = graph.contrib(
    "PagedAttention",
    [rows, rows, "", cache, "", rowEnds, graph.int32([0]), table, "", "", slots],
    {
      num_heads: 1,
      kv_num_heads: 1,
      kv_cache_layout: "LATENT",
      v_head_size: 1,
      scale: { float: 1 },
      local_window_size: 1,
    },
  );
  // 0, known when the write has begun: it orders the write before what reads the cache, and keeps views of the cache from
  // being folded. No `Concat` with it: ONNX Runtime sees through those.
  const zero = graph.node("Sub", [graph.dimension(written, 0), graph.dimension(rows, 0)]);
  return {
    all: () => graph.node("Reshape", [cache, graph.node("Add", [graph.int([-1, width]), zero])]),
    readable: () => {
      const end = graph.node("Add", [blocks, zero]);
      return graph.reshape(graph.node("Slice", [cache, graph.int([0]), end, graph.int([0])]), [-1, width]);
    },
  };
}
