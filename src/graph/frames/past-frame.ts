/**
 * A chunk of rows against caches that grow, for a CPU: the rows of the caches come in as they are and new ones go out, so that
 * nothing copies a cache. One row (decode) gathers from the past and from itself; a short context is read as a whole under a
 * bias; beyond, the rows' own keys are gathered. All of it in absorbed form.
 */

import { OnnxType } from "../../checkpoint/dtype.ts";
import type { Value } from "../graph-builder.ts";
import { closedKeys, latentScores, readGathered, readLatents, rowColumn } from "../layer/attention-kernels.ts";
import type { IndexQueries, LayerFrame, Queries } from "../layer/dsa-layer.ts";
import { chunkKernels, chunkWays } from "../layer/kernels.ts";
import { absorbedQueries, absorbedValues, joinLatents } from "../layer/latent-attention.ts";
import { raiseOthers, topk } from "../layer/lightning-indexer.ts";
import type { ModelGraph } from "../model-graph.ts";

/** What a chunk of query rows brings to every layer: cos and sin of the rows' angles, and their positions, int64 `[S]`. */
export interface ChunkInputs {
  cos: Value;
  sin: Value;
  positions: Value;
}

/** What all layers know of a chunk's rows and of how many keys there are, made once a graph: a decoded token pays for nodes. */
export interface ChunkRows extends ChunkInputs {
  /** Positions as int32 `[S, 1]`. */
  column: Value;
  /** int64 `[1]`: rows of a cache, rows of the chunk, both together. */
  past: Value;
  fresh: Value;
  total: Value;
  /** int64 `[1]`: how many keys a row selects. */
  selected: Value;
  /** -inf where a row of the chunk is another one's future, 0 elsewhere: float `[S, S]`. */
  future: Value;
  /** Conditions of branches. */
  seesEveryKey: Value;
  isDecode: Value;
  readsAll: Value;
  /** Absent where there are never so many keys that it pays. */
  boundsScores: Value | undefined;
  selectsInBlocks: Value;
  readsInBlocks: Value;
}

/**
 * @param cache any cache's rows from before the chunk: all are equally long
 * @param keys how many there will be: with few, a graph leaves out what only many need, and opens in less time; it stays right
 */
export function chunkRows(
  graph: ModelGraph,
  inputs: ChunkInputs,
  cache: Value,
  keys = Number.POSITIVE_INFINITY,
): ChunkRows {
  const { config } = graph;
  const { positions } = inputs;
  const ways = chunkWays(config);
  const past = graph.dimension(cache, 0);
  const fresh = graph.dimension(positions, 0);
  const total = graph.node("Add", [past, fresh]);
  const at = (test: string, rows: Value, limit: number): Value => graph.node(test, [rows, graph.int([limit])]);
  const scalar = (...conditions: [Value, Value?]): Value =>
    graph.node("Squeeze", [conditions.length === 2 ? graph.node("And", conditions as Value[]) : conditions[0]]);
  // ONNX cuts in equal pieces and a smaller one, which may not be empty; pieces of one row gain nothing.
  const cuts = (rows: Value, parts: number): Value => {
    const size = graph.node("Div", [graph.node("Add", [rows, graph.int([parts - 1])]), graph.int([parts])]);
    const equal = graph.node("Mul", [size, graph.int([parts - 1])]);
    return graph.node("And", [graph.node("Less", [equal, rows]), at("GreaterOrEqual", rows, 2 * parts)]);
  };
  const later = graph.node("Greater", [
    graph.node("Unsqueeze", [positions, graph.int([0])]),
    graph.node("Unsqueeze", [positions, graph.int([1])]),
  ]);
  return {
    ...inputs,
    column: rowColumn(graph, positions),
    past,
    fresh,
    total,
    selected: graph.node("Min", [total, graph.int([config.indexTopk])]),
    future: graph.node("Where", [later, graph.float(Number.NEGATIVE_INFINITY), graph.float(0)]),
    // With no more keys than the budget every key is selected, whatever the scores: the exact short cut.
    seesEveryKey: scalar(at("LessOrEqual", total, config.indexTopk)),
    isDecode: scalar(at("Equal", fresh, 1), at("GreaterOrEqual", past, 1)),
    readsAll: scalar(at("LessOrEqual", total, ways.denseUpTo)),
    boundsScores:
      keys < ways.boundFrom
        ? undefined
        : scalar(at("GreaterOrEqual", total, ways.boundFrom), at("GreaterOrEqual", fresh, ways.boundRows)),
    selectsInBlocks: scalar(cuts(fresh, ways.selectBlocks), cuts(past, ways.selectPieces)),
    readsInBlocks: scalar(cuts(fresh, ways.gatherBlocks)),
  };
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

export function pastFrame(graph: ModelGraph, chunk: ChunkRows, past: PastRows): PastFrame {
  const angles = { cos: chunk.cos, sin: chunk.sin };
  const fresh: PastRows = {};
  return {
    graph,
    kernels: chunkKernels,
    angles,
    selects: true,
    restByChunk: false,
    fresh,
    keepIndexKeys: (rows) => {
      fresh.indexKey = rows;
      return (queries, ask) => select(queries, chunk, past.indexKey as Value, rows, ask);
    },
    keepLatents: (layer, latents) => {
      const rows = joinLatents(graph, latents);
      fresh.latent = rows;
      return (_, asked, selected) => {
        const absorbed = absorbedQueries(graph, layer, asked);
        const mixed = attend(graph, chunk, absorbed, selected as Value, past.latent as Value, rows);
        return absorbedValues(graph, layer, mixed);
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
  chunk: ChunkRows,
  past: Value,
  fresh: Value,
  ask: (inside: Queries) => IndexQueries,
): Value {
  const { total } = chunk;
  return queries.graph.either(
    chunk.seesEveryKey,
    (then) => {
      const range = then.node("Range", [then.int(0), then.node("Squeeze", [total]), then.int(1)]);
      const shape = then.node("Concat", [chunk.fresh, total], { axis: 0 });
      return then.node("Expand", [then.cast(range, OnnxType.int32), shape]);
    },
    (inside) => {
      const asked = ask({ ...queries, graph: inside });
      const choose = (way: ModelGraph, bounded: boolean) => selectScored(way, chunk, past, fresh, asked, bounded);
      const indices =
        chunk.boundsScores === undefined
          ? choose(inside, false)
          : inside.either(
              chunk.boundsScores,
              (long) => choose(long, true),
              (short) => choose(short, false),
            );
      return inside.cast(indices, OnnxType.int32);
    },
  );
}

/**
 * The same by scores, `[S, index_topk]`, rows in blocks where there are enough. Past and fresh keys are scored apart and the scores
 * joined: joining the keys would copy the whole cache.
 * @param bounded of many scores those below a bound are put aside first, and past keys are taken in pieces
 */
function selectScored(
  graph: ModelGraph,
  chunk: ChunkRows,
  past: Value,
  fresh: Value,
  asked: IndexQueries,
  bounded: boolean,
): Value {
  const { config } = graph;
  const { scoreGroups, selectBlocks, selectPieces } = chunkWays(config);
  const k = chunk.selected;
  const all = [
    graph.reshape(asked.queries, [-1, config.indexNHeads, config.indexHeadDim]),
    graph.node("Unsqueeze", [asked.weights, graph.int([1])]),
    graph.node("Unsqueeze", [chunk.future, graph.int([1])]),
  ];
  if (bounded) {
    // Columns that make whole groups of them: nobody's keys, and last, so that they lose every tie.
    const missing = graph.node("Mod", [graph.node("Neg", [chunk.total]), graph.int([scoreGroups])]);
    const shape = graph.node("Concat", [chunk.fresh, graph.int([1]), missing], { axis: 0 });
    all.push(graph.node("Expand", [graph.float(Number.NEGATIVE_INFINITY), shape]));
  }
  const choose = (inside: ModelGraph, keys: Value[], [own, weights, future, ...nobodys]: Value[]): Value => {
    const scored = (some: Value): Value => {
      const products = inside.node("Relu", [inside.contrib("FusedMatMul", [own as Value, some], { transB: 1 })]);
      return inside.node("MatMul", [weights as Value, products]);
    };
    const visible = inside.node("Add", [scored(fresh), future as Value]);
    const joined = inside.node("Concat", [...keys.map(scored), visible, ...nobodys], { axis: 2 });
    return topk(inside, bounded ? raiseOthers(inside, joined, scoreGroups, k) : joined, k)[1];
  };
  const chosen = graph.either(
    chunk.selectsInBlocks,
    (many) => {
      const cut = (rows: Value, parts: number): Value[] =>
        many.nodes("Split", [rows], { axis: 0, num_outputs: parts }, parts);
      const keys = bounded ? cut(past, selectPieces) : [past];
      const pieces = all.map((rows) => cut(rows, selectBlocks));
      const blocks = Array.from({ length: selectBlocks }, (_, i) => pieces.map((piece) => piece[i] as Value));
      return many.node(
        "Concat",
        blocks.map((block) => choose(many, keys, block)),
        { axis: 0 },
      );
    },
    (whole) => choose(whole, [past], all),
  );
  return graph.node("Squeeze", [chosen, graph.int([1])]);
}

/** Softmax attention over the selected keys, `[S, H, latentWidth]`: three ways that give the same result. */
function attend(
  graph: ModelGraph,
  chunk: ChunkRows,
  queries: Value,
  selected: Value,
  past: Value,
  fresh: Value,
): Value {
  const closed = closedKeys(graph, selected, chunk.column);
  return graph.either(
    chunk.isDecode,
    (decode) => {
      const limit = decode.cast(chunk.past, OnnxType.int32);
      const inPast = decode.node("Min", [selected, decode.node("Sub", [limit, decode.int32(1)])]);
      const isFresh = decode.node("Unsqueeze", [decode.node("Equal", [selected, limit]), decode.int([2])]);
      const gathered = decode.node("Where", [isFresh, fresh, decode.node("Gather", [past, inPast], { axis: 0 })]);
      return readGathered(decode, queries, gathered, closed);
    },
    (several) => {
      const keys = several.node("Concat", [past, fresh], { axis: 0 });
      return several.either(
        chunk.readsAll,
        (dense) => {
          const scores = latentScores(dense, queries, keys, chunk.total);
          return readLatents(dense, scores, keys, chunk.total, selected, closed);
        },
        (sparse) => {
          const { gatherBlocks } = chunkWays(graph.config);
          const read = (inside: ModelGraph, own: Value, chosen: Value, shut: Value): Value => {
            const rows = inside.node("Gather", [keys, chosen], { axis: 0 });
            return readGathered(inside, own, rows, shut);
          };
          return sparse.either(
            chunk.readsInBlocks,
            (many) => {
              const cut = (rows: Value): Value[] =>
                many.nodes("Split", [rows], { axis: 0, num_outputs: gatherBlocks }, gatherBlocks);
              const [own, chosen, shut] = [cut(queries), cut(selected), cut(closed)];
              const blocks = own.map((block, i) => read(many, block, chosen[i] as Value, shut[i] as Value));
              return many.node("Concat", blocks, { axis: 0 });
            },
            (few) => read(few, queries, selected, closed),
          );
        },
      );
    },
  );
}
