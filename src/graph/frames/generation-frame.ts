/**
 * The rows of one run (a chunk of the prompt, or one new token) against caches of a fixed size, in the way of reading keys that the run
 * takes. Shared layers have neither indexer weights nor index keys.
 */

import { OnnxType } from "../../checkpoint/dtype.ts";
import type { LayerWeights } from "../../checkpoint/weights.ts";
import type { Value } from "../graph-builder.ts";
import { closedKeys, readExpanded, readGathered, selectionBias } from "../layer/attention-kernels.ts";
import type { IndexQueries, LayerFrame, Queries } from "../layer/dsa-layer.ts";
import type { Kernels } from "../layer/kernels.ts";
import {
  absorbedQueries,
  absorbedValues,
  expand,
  joinLatents,
  renamed,
  splitLatents,
} from "../layer/latent-attention.ts";
import { indexScores, tieStep, topk } from "../layer/lightning-indexer.ts";
import type { ModelGraph } from "../model-graph.ts";
import { type CacheContext, type CacheName, type WrittenCache, writeCache } from "./generation-caches.ts";

/**
 * How the rows of a run find and read their keys. `every`: all that they see, without scores. `read`: scores, then all
 * keys under a bias that opens the selected ones. `gather`: scores, then the selected latent rows. `single` is `gather`
 * for one row, `far` the same with so many keys that one top-k over them would leave most of a GPU idle.
 */
export type Way = "every" | "read" | "gather" | "single" | "far";

/** Pieces that a `far` run ranks its keys in: the keys are a multiple of it, and each piece has `index_topk` of them. */
export const farPieces = 16;

/** What all layers of one way share. */
export interface Pass {
  graph: ModelGraph;
  kernels: Kernels;
  caches: CacheContext;
  way: Way;
  /** cos and sin of the rows, `[rows, qk_rope_head_dim / 2]`. */
  angles: { cos: Value; sin: Value };
  /** Readable rows of the caches / `cacheBlock`, int64 `[1]`. */
  blocks: Value;
  /** int64 `[readable]`: 0, 1, ... */
  places: Value;
  /** The rows' positions, int64 `[rows, 1]`. */
  row: Value;
  /** Float `[rows, readable]`: -inf in a row's future, elsewhere what lets the lowest index win a tie. */
  visible: Value | undefined;
  /** What closes the keys of a selection that are in the rows' future, made once for all layers that read it. */
  closed: (selected: Value) => Value;
}

/** Starts a pass: what its layers share. */
export function startPass(
  pass: Omit<Pass, "blocks" | "places" | "row" | "visible" | "closed">,
  blockRows: number,
): Pass {
  const { graph, way } = pass;
  const blocks = graph.dimension("readable_blocks", 0);
  const end = graph.node("Squeeze", [graph.node("Mul", [blocks, graph.int([blockRows])])]);
  const places = graph.node("Range", [graph.int(0), end, graph.int(1)]);
  const row = graph.node("Unsqueeze", ["position_ids", graph.int([1])]);
  const scored = way !== "every";
  const future = scored ? graph.node("Greater", [places, row]) : "";
  const order = scored ? graph.node("Mul", [graph.cast(places, OnnxType.float), graph.float(tieStep)]) : "";
  const visible = scored ? graph.node("Where", [future, graph.float(Number.NEGATIVE_INFINITY), order]) : undefined;
  return { ...pass, blocks, places, row, visible, closed: masksIn(graph, row) };
}

/** The same pass in a graph inside its own: what is made there stays there. */
export function within(pass: Pass, graph: ModelGraph): Pass {
  return { ...pass, graph, closed: masksIn(graph, pass.row) };
}

function masksIn(graph: ModelGraph, row: Value): Pass["closed"] {
  const masks = new Map<Value, Value>();
  return (selected) => {
    const mask = masks.get(selected) ?? closedKeys(graph, selected, row);
    masks.set(selected, mask);
    return mask;
  };
}

/** New rows of one layer's caches, as their names are. */
export interface CacheRows<T> {
  latent: T;
  indexKey: T;
}

/** A frame that remembers the new rows that it was given, for caches that are fed. */
export interface GenerationFrame extends LayerFrame<Queries> {
  fresh: Partial<CacheRows<Value>>;
}

export function generationFrame(pass: Pass, names: CacheRows<CacheName>): GenerationFrame {
  const { graph, caches, blocks, angles, way } = pass;
  const kernels = indexKernels(pass);
  const fresh: Partial<CacheRows<Value>> = {};
  return {
    graph,
    kernels,
    angles,
    selects: way !== "every",
    restByChunk: false,
    fresh,
    // Keys are kept from the first token on, also by runs that select nothing.
    keepIndexKeys: (rows) => {
      fresh.indexKey = rows;
      const keys = writeCache(graph, caches, names.indexKey, rows, blocks);
      return (queries, ask) => select({ ...pass, kernels }, keys, ask(queries));
    },
    keepLatents: (layer, latents) => {
      fresh.latent = joinLatents(graph, latents);
      const cache = writeCache(graph, caches, names.latent, fresh.latent, blocks);
      return (_, asked, selected) =>
        selected === undefined || way === "read"
          ? readAll(pass, layer, asked, cache, selected)
          : readSelected(pass, layer, asked, cache, selected);
    },
    overQueries: (body) => body({ graph, rows: (all) => all, angles: () => angles }),
  };
}

/** One row's index scores take no time, and are float32 in every precision. */
function indexKernels({ kernels, way }: Pass): Kernels {
  return isSingle(way) ? { ...kernels, indexProducts: "float32" } : kernels;
}

/** Index scores of all readable keys, then top-k: int64 `[rows, index_topk]`. */
function select(pass: Pass, keys: WrittenCache, { queries, weights }: IndexQueries): Value {
  const { graph, kernels, visible, way } = pass;
  const asked = graph.reshape(queries, [-1, graph.config.indexHeadDim]);
  const readable = keys.readable();
  const rows = kernels.indexProducts === "float16" ? readable : graph.toFloat(readable);
  const scored = { rows, count: () => graph.dimension(readable, 0) };
  const scores = indexScores(graph, kernels, asked, weights, scored, { single: isSingle(way) });
  const seen = graph.node("Add", [scores, visible as Value]);
  return way === "far" ? topkOfPieces(pass, seen) : topk(graph, seen, graph.int([graph.config.indexTopk]))[1];
}

/**
 * Top-k of one row `[1, readable]`, int64 `[1, K]`. A GPU gives each row of a top-k to one of its processors: so the row
 * is cut into pieces, whose winners are ranked a quarter of them at a time, then all that is left at once.
 */
function topkOfPieces({ graph, places }: Pass, scores: Value): Value {
  const k = graph.int([graph.config.indexTopk]);
  let [values, indices] = [scores, places];
  for (const pieces of [farPieces, farPieces / 4, 1]) {
    const cut = graph.reshape(indices, [pieces, -1]);
    const [best, at] = topk(graph, graph.reshape(values, [pieces, -1]), k);
    values = best;
    indices = graph.node("GatherElements", [cut, at], { axis: 1 });
  }
  return indices;
}

/** Attention over all readable keys, expanded, under a bias, `[rows, H * dv]`. */
function readAll(
  { graph, row, places, closed }: Pass,
  layer: LayerWeights,
  queries: Value,
  cache: WrittenCache,
  selected: Value | undefined,
): Value {
  const { numAttentionHeads: heads, vHeadDim } = graph.config;
  const rows = cache.readable();
  const [content, pe] = splitLatents(graph, rows);
  const keys = expand(graph, layer, { content, pe }, 1);
  const shape = () => graph.node("Concat", [graph.dimension(row, 0), graph.dimension(rows, 0)], { axis: 0 });
  const bias =
    selected === undefined ? closedKeys(graph, places, row) : selectionBias(graph, shape(), selected, closed(selected));
  const attended = readExpanded(graph, queries, keys, graph.node("Unsqueeze", [bias, graph.int([0, 1])]));
  return graph.reshape(attended, [-1, heads * vHeadDim]);
}

/** Attention over the selected latent rows in absorbed form, `[rows, H * dv]`. */
function readSelected(
  { graph, way, closed }: Pass,
  layer: LayerWeights,
  queries: Value,
  cache: WrittenCache,
  selected: Value,
): Value {
  const swap = isSingle(way) ? renamed : undefined;
  const asked = absorbedQueries(graph, layer, queries, swap);
  const rows = graph.node("Gather", [cache.all(), selected], { axis: 0 });
  return absorbedValues(graph, layer, readGathered(graph, asked, rows, closed(selected)), swap);
}

export function isSingle(way: Way): boolean {
  return way === "single" || way === "far";
}
