/**
 * Layers over whole sequences: the keys of all rows are made once, then query chunks score and attend. Up to a length,
 * keys and values are expanded and read under a bias that opens the selected ones: the fused attention of a GPU does that
 * faster than it gathers rows of their own for every query. Beyond it, the selected latent rows are gathered (docs/gpu.md
 * has the figures).
 */

import { OnnxType } from "../../checkpoint/dtype.ts";
import type { LayerWeights } from "../../checkpoint/weights.ts";
import { latentParts } from "../exported/contract.ts";
import type { Value } from "../graph-builder.ts";
import { closedKeys, readExpanded, readGathered, rowColumn, selectionBias } from "../layer/attention-kernels.ts";
import type { IndexQueries, LayerFrame } from "../layer/dsa-layer.ts";
import {
  absorbedQueries,
  absorbedValues,
  type ExpandedKeys,
  expand,
  joinLatents,
  type Latents,
} from "../layer/latent-attention.ts";
import { indexScores, tieStep, topk } from "../layer/lightning-indexer.ts";
import type { ModelGraph } from "../model-graph.ts";
import {
  asksTogether,
  inOrder,
  isWrittenOut,
  overChunks,
  postAttentionBytes,
  type QueryChunk,
  type SequenceContext,
  selectsKeys,
} from "./sequence-rows.ts";
import { gatherBlocks, rankingsBytes, readableKeys, scoreBlocks } from "./sequence-sizes.ts";

export function sequenceFrame(graph: ModelGraph, context: SequenceContext): LayerFrame<QueryChunk> {
  const { config, shape, kernels, cos, sin, positions } = context;
  return {
    graph,
    kernels,
    angles: { cos, sin, places: { positions, together: shape.chunkRows } },
    selects: selectsKeys(config, shape),
    restByChunk: postAttentionBytes(config, shape) === 0,
    keepIndexKeys: (fresh) => keepIndexKeys(graph, context, fresh),
    keepLatents: (layer, fresh) => keepLatents(graph, context, layer, fresh),
    overQueries: (body) => overChunks(graph, context, body),
    overAttention: (body) => overChunks(graph, context, body, { first: firstChunks(context) }),
    asksTogether: asksTogether(context),
  };
}

/**
 * Indices of the selected keys, int32 `[rows, index_topk]`, in no order. Rows that see fewer keys get keys of their future as
 * well; attention masks them.
 */
function keepIndexKeys(graph: ModelGraph, context: SequenceContext, fresh: Value) {
  const { config, shape, kernels } = context;
  const { indexHeadDim: dim } = config;
  const ordered = graph.reshape(inOrder(graph, context, fresh, dim), [shape.batch, -1, dim]);
  const keys = kernels.indexProducts === "float16" ? ordered : graph.toFloat(ordered);
  const range = graph.node("Range", [graph.int(0), graph.int(shape.length), graph.int(1)]);
  const every = graph.cast(range, OnnxType.int32);
  const order = graph.node("Mul", [graph.cast(range, OnnxType.float), graph.float(tieStep)]);
  const k = config.indexTopk;

  const score = (chunk: QueryChunk, { queries, weights }: IndexQueries): Value => {
    const { graph: inside, seen: visibleKeys } = chunk;
    // Only keys up to the end of the chunk are scored; top-k needs as many as it selects.
    const end = inside.node("Unsqueeze", [inside.node("Max", [visibleKeys, inside.int(k)]), inside.int([0])]);
    const prefix = (all: Value, axis: number) =>
      shape.chunks === 1 ? all : inside.node("Slice", [all, inside.int([0]), end, inside.int([axis])]);
    const seen = prefix(keys, 1);
    const rows = { rows: seen, count: () => inside.dimension(seen, 1) };
    const own = (blockQueries: Value, blockWeights: Value): Value =>
      indexScores(inside, kernels, inside.reshape(blockQueries, [shape.batch, -1, dim]), blockWeights, rows);
    const blocks = scoreBlocks(context, chunk.end ?? shape.length);
    const size = shape.chunkRows / blocks;
    const flat = blocks === 1 ? queries : inside.reshape(queries, [-1, config.indexNHeads * dim]);
    const cut = (all: Value, block: number): Value =>
      blocks === 1 ? all : inside.slice(all, 0, block * size, (block + 1) * size);
    const parts = Array.from({ length: blocks }, (_, block) => own(cut(flat, block), cut(weights, block)));
    const scores = blocks === 1 ? (parts[0] as Value) : inside.node("Concat", parts, { axis: 0 });
    const ranking = rankingOf(inside, context, chunk);
    if (ranking !== undefined) {
      const ranked = inside.node("Add", [scores, ranking]);
      return inside.cast(topk(inside, ranked, inside.int([k]))[1], OnnxType.int32);
    }
    const future = inside.node("Greater", [prefix(every, 0), rowColumn(inside, chunk.positions())]);
    const ranked = inside.node("Add", [scores, prefix(order, 0)]);
    const visible = inside.node("Where", [future, inside.float(Number.NEGATIVE_INFINITY), ranked]);
    return inside.cast(topk(inside, visible, inside.int([k]))[1], OnnxType.int32);
  };
  return (chunk: QueryChunk, ask: (inside: QueryChunk) => IndexQueries): Value => {
    const scored = (inside: ModelGraph) => score({ ...chunk, graph: inside }, ask({ ...chunk, graph: inside }));
    // A chunk that ends within the first `index_topk` rows selects every key that it sees: these indices need no scores.
    const first = (inside: ModelGraph) => {
      const row = inside.node("Range", [inside.int(0), inside.int(k), inside.int(1)]);
      return inside.node("Expand", [inside.cast(row, OnnxType.int32), inside.int([shape.batch * shape.chunkRows, k])]);
    };
    return byEnd(chunk, k, first, scored);
  };
}

/**
 * What is added to a chunk's index scores, float32 `[rows, keys]`: the order of ties, and minus infinity in the future. It is
 * the same in every layer, and made once where there is room for it.
 */
function rankingOf(graph: ModelGraph, context: SequenceContext, chunk: QueryChunk): Value | undefined {
  const { config, shape, positions } = context;
  const { end, count } = chunk;
  if (end === undefined || rankingsBytes(context) === 0) return undefined;
  const keys = Math.max(end, config.indexTopk);
  return graph.derived(`ranking of ${keys}`, (outer) => {
    const range = outer.node("Range", [outer.int(0), outer.int(keys), outer.int(1)]);
    const rows = outer.slice(positions, 0, (end - count) * shape.batch, end * shape.batch);
    const order = outer.node("Mul", [outer.cast(range, OnnxType.float), outer.float(tieStep)]);
    const future = outer.node("Greater", [outer.cast(range, OnnxType.int32), rowColumn(outer, rows)]);
    return outer.node("Where", [future, outer.float(Number.NEGATIVE_INFINITY), order]);
  });
}

/**
 * How many of a sequence's first chunks attend together: they end within the first `index_topk` rows, which read every key
 * before them. An operator without a bias, which skips the future by itself, takes them at more than the speed of others.
 */
function firstChunks(context: SequenceContext): number {
  const { config, shape, kernels } = context;
  if (!kernels.atOnce || shape.batch > 1 || !isWrittenOut(context)) return 0;
  return Math.min(shape.chunks, Math.floor(config.indexTopk / shape.chunkRows));
}

/** Picks by the keys that a chunk sees: before the run where their number is known, in it otherwise. */
function byEnd(
  { graph, seen, end }: QueryChunk,
  most: number,
  upTo: (inside: ModelGraph) => Value,
  beyond: (inside: ModelGraph) => Value,
): Value {
  if (end !== undefined) return end <= most ? upTo(graph) : beyond(graph);
  return graph.either(graph.node("LessOrEqual", [seen, graph.int(most)]), upTo, beyond);
}

/** The latents in order of sequences, and keys and values of the first `readable` of each, `[batch, readable, ..]`. */
export function orderedKeys(
  graph: ModelGraph,
  context: SequenceContext,
  layer: LayerWeights,
  fresh: Latents,
): { expanded: ExpandedKeys; ordered: Latents } {
  const { config, shape } = context;
  const [rank, rope] = latentParts(config);
  const readable = readableKeys(context);
  const ordered = {
    content: inOrder(graph, context, fresh.content, rank),
    pe: inOrder(graph, context, fresh.pe, rope),
  };
  const first = (x: Value) => (readable === shape.length ? x : graph.slice(x, 0, 0, readable));
  const read = { content: first(ordered.content), pe: first(ordered.pe) };
  return { ordered, expanded: expand(graph, layer, read, shape.batch, context.kernels.atOnce) };
}

function keepLatents(graph: ModelGraph, context: SequenceContext, layer: LayerWeights, fresh: Latents) {
  const { config, shape } = context;
  const readable = readableKeys(context);
  const { expanded, ordered } = orderedKeys(graph, context, layer, fresh);
  const latent = readable === shape.length ? undefined : joinLatents(graph, ordered);
  return (chunk: QueryChunk, queries: Value, everyRows: Value | undefined): Value => {
    // Cut out where it is read: what nobody reads runs last, and all that it is made of stays until then.
    let own: Value | undefined;
    const selected =
      everyRows === undefined
        ? undefined
        : (): Value => {
            own ??= chunk.rows(everyRows);
            return own;
          };
    const row = (inside: ModelGraph) => rowColumn(inside, chunk.positions());
    const all = (inside: ModelGraph) => readAll({ ...chunk, graph: inside }, context, expanded, queries, row, selected);
    if (latent === undefined || selected === undefined) return all(chunk.graph);
    const gathered = (inside: ModelGraph) => {
      // A chunk that begins after the first `index_topk` rows selects nothing of its future.
      const late = (chunk.end ?? readable) >= config.indexTopk + chunk.count;
      const closed = late ? undefined : closedKeys(inside, selected(), row(inside));
      const blocks = gatherBlocks(context);
      const size = (shape.batch * chunk.count) / blocks;
      const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope } = config;
      const flat = blocks === 1 ? queries : inside.reshape(queries, [-1, heads * (rope + nope)]);
      const parts = Array.from({ length: blocks }, (_, block) => {
        const cut = (all: Value): Value =>
          blocks === 1 ? all : inside.slice(all, 0, block * size, (block + 1) * size);
        const rows = inside.node("Gather", [latent, cut(selected())], { axis: 0 });
        const asked = absorbedQueries(inside, layer, cut(flat));
        return absorbedValues(inside, layer, readGathered(inside, asked, rows, closed && cut(closed)));
      });
      return blocks === 1 ? (parts[0] as Value) : inside.node("Concat", parts, { axis: 0 });
    };
    return byEnd(chunk, readable, all, gathered);
  };
}

/** Attention over expanded keys under a bias, `[chunk rows, H * dv]`. */
function readAll(
  chunk: QueryChunk,
  context: SequenceContext,
  { keys, values }: ExpandedKeys,
  queries: Value,
  row: (inside: ModelGraph) => Value,
  selected: (() => Value) | undefined,
): Value {
  const { graph, end, count } = chunk;
  const { config, shape } = context;
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, vHeadDim } = config;
  const readable = readableKeys(context);
  const needed = end === undefined ? readable : Math.max(end, config.indexTopk);
  // The first rows read what they see: no bias has to say so.
  const first = end === count && firstChunks(context) > 0;
  const cut = first ? count : context.kernels.keyBounds === "slices" ? Math.min(needed, readable) : readable;
  const prefix = (x: Value) => (cut === readable ? x : graph.slice(x, 1, 0, cut));
  const attended = readExpanded(
    graph,
    graph.reshape(queries, [shape.batch, -1, heads * (rope + nope)]),
    { keys: prefix(keys), values: prefix(values) },
    first ? "" : graph.reshape(biasOf(chunk, context, cut, row, selected), [shape.batch, 1, count, cut]),
    first || shape.chunks === 1 ? "" : keyBounds(chunk, context),
    first,
  );
  return graph.reshape(attended, [-1, heads * vHeadDim]);
}

/** 0 at the keys that a row reads and the lowest number elsewhere, `[rows, keys]`. */
function biasOf(
  { graph, end, count }: QueryChunk,
  { config, shape }: SequenceContext,
  keys: number,
  row: (inside: ModelGraph) => Value,
  selected: (() => Value) | undefined,
): Value {
  if (selected === undefined) return futureBias(graph, keys, row(graph));
  const rows = shape.batch * count;
  // A chunk that begins after the first `index_topk` rows selects nothing of its future.
  const late = end !== undefined && end - count >= config.indexTopk;
  const chosen = selected();
  const closed = late ? openKeys(graph, rows, config.indexTopk) : closedKeys(graph, chosen, row(graph));
  // Each layer's own: a size that is known, or the same in all layers, would have a buffer for the whole run.
  const size = graph.node("Concat", [graph.dimension(chosen, 0), graph.int([keys])], { axis: 0 });
  return selectionBias(graph, size, chosen, closed);
}

/** 0 for every selected key, `[rows, K]`. */
function openKeys(graph: ModelGraph, rows: number, k: number): Value {
  return graph.derived(`open keys ${rows}`, (outer) => outer.node("Expand", [outer.scalar(0), outer.int([rows, k])]));
}

/** 0 at the keys that a row sees and the lowest number in its future, `[rows, keys]`. */
function futureBias(graph: ModelGraph, keys: number, row: Value): Value {
  const range = graph.cast(graph.node("Range", [graph.int(0), graph.int(keys), graph.int(1)]), OnnxType.int32);
  return closedKeys(graph, range, row);
}

/** Keys after the chunk's end are not read at all: the bounds of what is, in the form that the provider runs well. */
function keyBounds({ graph, seen }: QueryChunk, context: SequenceContext): Value {
  const { shape, kernels } = context;
  const { batch, chunkRows } = shape;
  if (kernels.keyBounds === "slices") return "";
  const lengths = graph.node("Expand", [graph.node("Unsqueeze", [seen, graph.int([0])]), graph.int([batch])]);
  if (kernels.keyBounds === "lengths") return graph.cast(lengths, OnnxType.int32);
  // Lengths, then where each sequence begins among all queries, and among all keys.
  const begins = (rows: number) => Array.from({ length: batch + 1 }, (_, i) => i * rows);
  const offsets = graph.int([...begins(chunkRows), ...begins(readableKeys(context))]);
  return graph.cast(graph.node("Concat", [lengths, offsets], { axis: 0 }), OnnxType.int32);
}
