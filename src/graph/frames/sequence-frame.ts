/**
 * Layers over whole sequences: the keys of all rows are made once, then query chunks score and attend. Up to a length,
 * keys and values are expanded and read under a bias that opens the selected ones: the fused attention of a GPU does that
 * faster than it gathers rows of their own for every query. Beyond it, the selected latent rows are gathered (docs/gpu.md
 * has the figures).
 */
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { LayerWeights } from "../../checkpoint/weights.ts";
import type { GraphBuilder, Value } from "../graph-builder.ts";
import { closedKeys, readExpanded, readGathered, rowColumn, selectionBias } from "../layer/attention-kernels.ts";
import type { IndexQueries, LayerFrame } from "../layer/dsa-layer.ts";
import { readableLimit } from "../layer/kernels.ts";
import {
  absorbedQueries,
  absorbedValues,
  type ExpandedKeys,
  expand,
  joinLatents,
  type Latents,
} from "../layer/latent-attention.ts";
import { indexScores, tieStep, topk } from "../layer/lightning-indexer.ts";
import { type Chunk, inOrder, overChunks, restOfAllRows, type SequenceContext, selectsKeys } from "./sequence-rows.ts";

export function sequenceFrame(graph: GraphBuilder, context: SequenceContext): LayerFrame<Chunk> {
  const { config, shape, kernels, cos, sin, positions } = context;
  return {
    graph,
    config,
    kernels,
    angles: { cos, sin, places: { positions, together: shape.chunkRows } },
    selects: selectsKeys(config, shape),
    restByChunk: restOfAllRows(config, shape) === 0,
    keepIndexKeys: (fresh) => keepIndexKeys(graph, context, fresh),
    keepLatents: (layer, fresh) => keepLatents(graph, context, layer, fresh),
    overQueries: (body) => overChunks(graph, context, body),
  };
}

/**
 * Indices of the selected keys, int32 `[rows, index_topk]`, in no order. Scores are fp32 whatever the precision of the
 * graph. Rows that see fewer keys get keys of their future as well; attention masks them.
 */
function keepIndexKeys(graph: GraphBuilder, context: SequenceContext, fresh: Value) {
  const { config, shape, kernels } = context;
  const { indexNHeads: heads, indexHeadDim: dim } = config;
  // The operator multiplies plain matrices, so one sequence at a time.
  const fused = kernels.reluProduct && shape.batch === 1;
  const ordered = graph.reshape(inOrder(graph, context, fresh, dim), [shape.batch, shape.length, dim]);
  const keys = fused ? ordered : graph.toFloat(ordered);
  const range = graph.node("Range", [graph.int(0), graph.int(shape.length), graph.int(1)]);
  const every = graph.cast(range, OnnxType.int32);
  const order = graph.node("Mul", [graph.cast(range, OnnxType.float), graph.float(tieStep)]);
  const k = config.indexTopk;

  const score = (chunk: Chunk, { queries, weights }: IndexQueries): Value => {
    const { graph: inside, seen: visibleKeys } = chunk;
    // Only keys up to the end of the chunk are scored; top-k needs as many as it selects.
    const end = inside.node("Unsqueeze", [inside.node("Max", [visibleKeys, inside.int(k)]), inside.int([0])]);
    const prefix = (all: Value, axis: number) =>
      shape.chunks === 1 ? all : inside.node("Slice", [all, inside.int([0]), end, inside.int([axis])]);
    const seen = prefix(keys, 1);
    const asked = inside.reshape(queries, fused ? [-1, dim] : [shape.batch, shape.chunkRows * heads, dim]);
    const rows = { rows: fused ? inside.reshape(seen, [-1, dim]) : seen, count: () => inside.dimension(seen, 1) };
    const scores = indexScores(inside, config, kernels, asked, weights, rows, { fused });
    const future = inside.node("Greater", [prefix(every, 0), rowColumn(inside, chunk.positions())]);
    const ranked = inside.node("Add", [scores, prefix(order, 0)]);
    const visible = inside.node("Where", [future, inside.float(Number.NEGATIVE_INFINITY), ranked]);
    return inside.cast(topk(inside, visible, inside.int([k]))[1], OnnxType.int32);
  };
  return (chunk: Chunk, ask: (inside: Chunk) => IndexQueries): Value => {
    const scored = (inside: GraphBuilder) => score({ ...chunk, graph: inside }, ask({ ...chunk, graph: inside }));
    // A chunk that ends within the first `index_topk` rows selects every key that it sees: these indices need no scores.
    const first = (inside: GraphBuilder) => {
      const row = inside.node("Range", [inside.int(0), inside.int(k), inside.int(1)]);
      return inside.node("Expand", [inside.cast(row, OnnxType.int32), inside.int([shape.batch * shape.chunkRows, k])]);
    };
    return byEnd(chunk, k, first, scored);
  };
}

/** Picks by the keys that a chunk sees: before the run where their number is known, in it otherwise. */
function byEnd(
  { graph, seen, end }: Chunk,
  most: number,
  upTo: (inside: GraphBuilder) => Value,
  beyond: (inside: GraphBuilder) => Value,
): Value {
  if (end !== undefined) return end <= most ? upTo(graph) : beyond(graph);
  return graph.either(graph.node("LessOrEqual", [seen, graph.int(most)]), upTo, beyond);
}

/** Up to how many keys queries read all of them. */
export function readableKeys({
  config,
  shape,
  kernels,
}: Pick<SequenceContext, "config" | "shape" | "kernels">): number {
  // Several sequences at once are short ones: their rows would have to be gathered from one cache each.
  return shape.batch > 1 || shape.chunks === 1 ? shape.length : Math.min(shape.length, readableLimit(config, kernels));
}

/** The latents in order of sequences, and keys and values of the first `readable` of each, `[batch, readable, ..]`. */
export function orderedKeys(
  graph: GraphBuilder,
  context: SequenceContext,
  layer: LayerWeights,
  fresh: Latents,
): { expanded: ExpandedKeys; ordered: Latents } {
  const { config, shape } = context;
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, kvLoraRank: rank } = config;
  const readable = readableKeys(context);
  const ordered = {
    content: inOrder(graph, context, fresh.content, rank),
    pe: inOrder(graph, context, fresh.pe, rope),
  };
  const first = (x: Value) => (readable === shape.length ? x : graph.slice(x, 0, 0, readable));
  const read = { content: first(ordered.content), pe: first(ordered.pe) };
  const everyHead = graph.int([shape.batch * readable, heads, rope]);
  return { ordered, expanded: expand(graph, config, layer, read, everyHead, [shape.batch, readable]) };
}

function keepLatents(graph: GraphBuilder, context: SequenceContext, layer: LayerWeights, fresh: Latents) {
  const { config, shape } = context;
  const readable = readableKeys(context);
  const { expanded, ordered } = orderedKeys(graph, context, layer, fresh);
  const latent = readable === shape.length ? undefined : joinLatents(graph, ordered);
  return (chunk: Chunk, queries: Value, selected: Value | undefined): Value => {
    const row = rowColumn(chunk.graph, chunk.positions());
    const all = (inside: GraphBuilder) =>
      readAll({ ...chunk, graph: inside }, context, expanded, queries, row, selected);
    if (latent === undefined || selected === undefined) return all(chunk.graph);
    const gathered = (inside: GraphBuilder) => {
      const rows = inside.node("Gather", [latent, selected], { axis: 0 });
      const asked = absorbedQueries(inside, config, layer, queries);
      const mixed = readGathered(inside, config, asked, rows, closedKeys(inside, selected, row));
      return absorbedValues(inside, config, layer, mixed);
    };
    return byEnd(chunk, readable, all, gathered);
  };
}

/** Attention over expanded keys under a bias, `[chunk rows, H * dv]`. */
function readAll(
  chunk: Chunk,
  context: SequenceContext,
  { keys, values }: ExpandedKeys,
  queries: Value,
  row: Value,
  selected: Value | undefined,
): Value {
  const { graph, end } = chunk;
  const { config, shape, kernels } = context;
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, vHeadDim } = config;
  const readable = readableKeys(context);
  const cut = kernels.keyBounds === "slices" && end !== undefined ? Math.max(end, config.indexTopk) : readable;
  const first = (x: Value) => (cut === readable ? x : graph.slice(x, 1, 0, cut));
  const bias =
    selected === undefined
      ? futureBias(graph, cut, row)
      : selectionBias(
          graph,
          graph.int([shape.batch * shape.chunkRows, cut]),
          selected,
          closedKeys(graph, selected, row),
        );
  const attended = readExpanded(
    graph,
    config,
    graph.reshape(queries, [shape.batch, shape.chunkRows, heads * (rope + nope)]),
    { keys: first(keys), values: first(values) },
    graph.reshape(bias, [shape.batch, 1, shape.chunkRows, cut]),
    shape.chunks === 1 ? "" : keyBounds(chunk, context),
  );
  return graph.reshape(attended, [-1, heads * vHeadDim]);
}

/** 0 at the keys that a row sees and the lowest number in its future, `[rows, keys]`. */
function futureBias(graph: GraphBuilder, keys: number, row: Value): Value {
  const range = graph.cast(graph.node("Range", [graph.int(0), graph.int(keys), graph.int(1)]), OnnxType.int32);
  return closedKeys(graph, range, row);
}

/** Keys after the chunk's end are not read at all: the bounds of what is, in the form that the provider runs well. */
function keyBounds({ graph, seen }: Chunk, context: SequenceContext): Value {
  const { kernels, shape } = context;
  const { batch, chunkRows } = shape;
  if (kernels.keyBounds === "slices") return "";
  const lengths = graph.node("Expand", [graph.node("Unsqueeze", [seen, graph.int([0])]), graph.int([batch])]);
  if (kernels.keyBounds === "lengths") return graph.cast(lengths, OnnxType.int32);
  // Lengths, then where each sequence begins among all queries, and among all keys.
  const begins = (rows: number) => Array.from({ length: batch + 1 }, (_, i) => i * rows);
  const offsets = graph.int([...begins(chunkRows), ...begins(readableKeys(context))]);
  return graph.cast(graph.node("Concat", [lengths, offsets], { axis: 0 }), OnnxType.int32);
}
