/**
 * A chunk of rows against caches that grow, for a CPU: the rows of the caches come in as they are and new ones go out, so that
 * nothing copies a cache. One row (decode) gathers from the past and from itself; a short context is read as a whole under a
 * bias; beyond, the rows' own keys are gathered. All of it in absorbed form.
 */

import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { GraphBuilder, Value } from "../graph-builder.ts";
import { closedKeys, latentScores, readGathered, readLatents, rowColumn } from "../layer/attention-kernels.ts";
import type { IndexQueries, LayerFrame, Queries } from "../layer/dsa-layer.ts";
import { chunkKernels, chunkWays } from "../layer/kernels.ts";
import { absorbedQueries, absorbedValues, joinLatents } from "../layer/latent-attention.ts";
import { indexScores, raiseOthers, topk } from "../layer/lightning-indexer.ts";

/** What a chunk of query rows brings to every layer: cos and sin of the rows' angles, and their positions, int64 `[S]`. */
export interface ChunkInputs {
  cos: Value;
  sin: Value;
  positions: Value;
}

/** Past rows of one layer, by the name of their graph's input; what a graph does not read has no name. */
export interface PastRows {
  latent?: Value | undefined;
  indexKey?: Value | undefined;
}

/** A frame that remembers the new rows that it was given, for the graph's outputs. */
export interface PastFrame extends LayerFrame<Queries> {
  fresh: PastRows;
}

export function pastFrame(graph: GraphBuilder, config: DsaConfig, chunk: ChunkInputs, past: PastRows): PastFrame {
  const { positions, ...angles } = chunk;
  const fresh: PastRows = {};
  return {
    graph,
    config,
    kernels: chunkKernels,
    angles,
    selects: true,
    restByChunk: false,
    fresh,
    keepIndexKeys: (rows) => {
      fresh.indexKey = rows;
      return (queries, ask) => select(queries, config, past.indexKey as Value, rows, positions, ask);
    },
    keepLatents: (layer, latents) => {
      const rows = joinLatents(graph, latents);
      fresh.latent = rows;
      return (_, asked, selected) => {
        const absorbed = absorbedQueries(graph, config, layer, asked);
        const mixed = attend(graph, config, absorbed, selected as Value, past.latent as Value, rows, positions);
        return absorbedValues(graph, config, layer, mixed);
      };
    },
    overQueries: (body) => body({ graph, rows: (all) => all, angles: () => angles }),
  };
}

/**
 * Indices of the selected keys, int32 `[S, min(index_topk, T)]`, in no order. Rows that see fewer keys than that get
 * keys of their future as well, which attention masks again: a Shared layer has to do so anyway.
 */
function select(
  queries: Queries,
  config: DsaConfig,
  past: Value,
  fresh: Value,
  positions: Value,
  ask: (inside: Queries) => IndexQueries,
): Value {
  const { graph } = queries;
  const total = graph.node("Add", [graph.dimension(past, 0), graph.dimension(fresh, 0)]);
  const budget = graph.int([config.indexTopk]);
  const k = graph.node("Min", [budget, total]);
  // With no more keys than the budget every key is selected, whatever the scores: the exact short cut.
  const everyKey = graph.node("Squeeze", [graph.node("LessOrEqual", [total, budget])]);
  return graph.either(
    everyKey,
    (then) => {
      const range = then.node("Range", [then.int(0), then.node("Squeeze", [total]), then.int(1)]);
      const shape = then.node("Concat", [then.dimension(fresh, 0), total], { axis: 0 });
      return then.node("Expand", [then.cast(range, OnnxType.int32), shape]);
    },
    (inside) => {
      const asked = ask({ ...queries, graph: inside });
      const { heapFrom, heapRows, scoreGroups } = chunkWays(config);
      const pastRows = inside.dimension(past, 0);
      const isLong = inside.node("And", [
        inside.node("And", [
          inside.node("Greater", [total, inside.int([heapFrom])]),
          inside.node("GreaterOrEqual", [pastRows, inside.int([2 * scoreGroups])]),
        ]),
        inside.node("GreaterOrEqual", [inside.dimension(fresh, 0), inside.int([heapRows])]),
      ]);
      const indices = inside.either(
        inside.node("Squeeze", [isLong]),
        (long) => {
          const rest = long.node("Mod", [pastRows, long.int([scoreGroups])]);
          const sizes = long.node("Concat", [rest, long.node("Sub", [pastRows, rest])], { axis: 0 });
          const parts = long.nodes("Split", [past, sizes], { axis: 0 }, 2);
          const scores = visibleScores(long, config, parts, fresh, positions, asked);
          const all = long.node("Concat", scores, { axis: 1 });
          return topk(long, raiseOthers(long, all, scores[1] as Value, scoreGroups, k), k)[1];
        },
        (short) => {
          const scores = visibleScores(short, config, [past], fresh, positions, asked);
          return topk(short, short.node("Concat", scores, { axis: 1 }), k)[1];
        },
      );
      return inside.cast(indices, OnnxType.int32);
    },
  );
}

/**
 * Index scores of past rows in parts, and then of fresh ones, fp32 `[S, rows]`; -inf where a key is in the future. Joining
 * the keys instead would copy the whole cache.
 */
function visibleScores(
  graph: GraphBuilder,
  config: DsaConfig,
  past: Value[],
  fresh: Value,
  positions: Value,
  { queries, weights }: IndexQueries,
): Value[] {
  const asked = graph.reshape(queries, [-1, config.indexHeadDim]);
  const score = (rows: Value): Value => {
    const keys = { rows, count: () => graph.dimension(rows, 0), mayBeEmpty: true };
    return indexScores(graph, config, chunkKernels, asked, weights, keys, { fused: false });
  };
  const future = graph.node("Greater", [
    graph.node("Unsqueeze", [positions, graph.int([0])]),
    graph.node("Unsqueeze", [positions, graph.int([1])]),
  ]);
  const visible = graph.node("Where", [future, graph.float(Number.NEGATIVE_INFINITY), score(fresh)]);
  return [...past.map(score), visible];
}

/** Cuts tensors into `count` blocks of rows, all alike but the last, which has what is left over; joins what `body` makes of them. */
function inBlocks(
  graph: GraphBuilder,
  rows: Value,
  count: number,
  tensors: Value[],
  body: (blocks: Value[]) => Value,
): Value {
  const size = graph.node("Div", [rows, graph.int([count])]);
  const alike = graph.node("Expand", [size, graph.int([count - 1])]);
  const left = graph.node("Sub", [rows, graph.node("Mul", [size, graph.int([count - 1])])]);
  const sizes = graph.node("Concat", [alike, left], { axis: 0 });
  const cut = tensors.map((tensor) => graph.nodes("Split", [tensor, sizes], { axis: 0 }, count));
  const blocks = Array.from({ length: count }, (_, i) => body(cut.map((parts) => parts[i] as Value)));
  return graph.node("Concat", blocks, { axis: 0 });
}

/** Softmax attention over the selected keys, `[S, H, latentWidth]`: three ways that give the same result. */
function attend(
  graph: GraphBuilder,
  config: DsaConfig,
  queries: Value,
  selected: Value,
  past: Value,
  fresh: Value,
  positions: Value,
): Value {
  const closed = closedKeys(graph, selected, rowColumn(graph, positions));
  const pastRows = graph.dimension(past, 0);
  const freshRows = graph.dimension(fresh, 0);
  const one = graph.int([1]);
  const isDecode = graph.node("And", [
    graph.node("Equal", [freshRows, one]),
    graph.node("GreaterOrEqual", [pastRows, one]),
  ]);
  return graph.either(
    graph.node("Squeeze", [isDecode]),
    (decode) => {
      const limit = decode.cast(pastRows, OnnxType.int32);
      const inPast = decode.node("Min", [selected, decode.node("Sub", [limit, decode.int32(1)])]);
      const isFresh = decode.node("Unsqueeze", [decode.node("Equal", [selected, limit]), decode.int([2])]);
      const gathered = decode.node("Where", [isFresh, fresh, decode.node("Gather", [past, inPast], { axis: 0 })]);
      return readGathered(decode, config, queries, gathered, closed);
    },
    (chunk) => {
      const keys = chunk.node("Concat", [past, fresh], { axis: 0 });
      const total = chunk.node("Add", [pastRows, freshRows]);
      const isShort = chunk.node("LessOrEqual", [total, chunk.int([chunkWays(config).denseUpTo])]);
      return chunk.either(
        chunk.node("Squeeze", [isShort]),
        (dense) => {
          const scores = latentScores(dense, config, queries, keys, total);
          return readLatents(dense, config, scores, keys, total, selected, closed);
        },
        (sparse) => {
          const { gatherBlocks } = chunkWays(config);
          const read = (inside: GraphBuilder, own: Value, chosen: Value, shut: Value): Value => {
            const rows = inside.node("Gather", [keys, chosen], { axis: 0 });
            return readGathered(inside, config, own, rows, shut);
          };
          return sparse.either(
            sparse.node("Squeeze", [sparse.node("Less", [freshRows, sparse.int([2 * gatherBlocks])])]),
            (few) => read(few, queries, selected, closed),
            (many) =>
              inBlocks(many, freshRows, gatherBlocks, [queries, selected, closed], ([own, chosen, shut]) =>
                read(many, own as Value, chosen as Value, shut as Value),
              ),
          );
        },
      );
    },
  );
}
