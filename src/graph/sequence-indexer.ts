/** The lightning indexer over whole sequences (HF's GlmMoeDsaIndexer): keys once, then scores and top-k chunk by chunk. */
import { OnnxType } from "../checkpoint/dtype.ts";
import type { IndexerWeights, LayerWeights } from "../checkpoint/weights.ts";
import type { GraphBuilder, Value } from "./graph-builder.ts";
import { compressedQueries, indexHeadWeights, indexKeys, indexQueries } from "./lightning-indexer.ts";
import { type Chunk, inOrder, overChunks, type SequenceContext } from "./sequence-rows.ts";

/**
 * Where every head's relu is 0 the score is exactly 0, and many keys tie. The CPU's top-k takes the lowest index then,
 * CUDA's any. This step per position, which no other score feels, makes the lowest win everywhere.
 */
export const tieStep = -1e-30;

/**
 * Indices of the selected keys, int32 `[rows, index_topk]`, in no order, of sequences longer than that. Scores are fp32
 * whatever the precision of the graph. Rows that see fewer keys get keys of their future as well; attention masks them.
 */
export function selectSequenceKeys(
  graph: GraphBuilder,
  context: SequenceContext,
  layer: LayerWeights,
  indexer: IndexerWeights,
  hidden: Value,
): Value {
  const { config, shape, kernels, cos, sin, positions } = context;
  // The operator multiplies plain matrices, so one sequence at a time.
  const fused = kernels.reluProduct && shape.batch === 1;
  const { indexNHeads: heads, indexHeadDim: dim, indexTopk: topk } = config;
  const together = shape.chunkRows;
  const h = graph.rmsNorm(hidden, layer.inputNorm, config.rmsNormEps);
  const rotated = indexKeys(graph, config, indexer, h, { cos, sin, positions, together });
  const ordered = graph.reshape(inOrder(graph, context, rotated, dim), [shape.batch, shape.length, dim]);
  const keys = fused ? ordered : graph.cast(ordered, OnnxType.float);
  const range = graph.node("Range", [graph.int(0), graph.int(shape.length), graph.int(1)]);
  const every = graph.cast(range, OnnxType.int32);
  const order = graph.node("Mul", [graph.cast(range, OnnxType.float), graph.float(tieStep)]);

  const compressed = compressedQueries(graph, layer, h);

  const score = ({ graph: chunk, rows, seen: visibleKeys }: Chunk): Value => {
    const own = rows(h);
    const at = { cos, sin, positions: rows(positions), together };
    const turned = indexQueries(chunk, config, indexer, rows(compressed), at);
    // Only keys up to the end of the chunk are scored; top-k needs as many as it selects.
    const end = chunk.node("Unsqueeze", [chunk.node("Max", [visibleKeys, chunk.int(topk)]), chunk.int([0])]);
    const prefix = (all: Value, axis: number) =>
      shape.chunks === 1 ? all : chunk.node("Slice", [all, chunk.int([0]), end, chunk.int([axis])]);
    const seen = prefix(keys, 1);
    const products = fused
      ? reluProduct(chunk, chunk.reshape(turned, [-1, dim]), chunk.reshape(seen, [-1, dim]))
      : chunk.node("Relu", [
          transposedProduct(
            chunk,
            context,
            chunk.cast(chunk.reshape(turned, [shape.batch, shape.chunkRows * heads, dim]), OnnxType.float),
            seen,
          ),
        ]);
    const perHead = chunk.node("Reshape", [
      products,
      chunk.node("Concat", [chunk.int([-1, heads]), chunk.dimension(seen, 1)], { axis: 0 }),
    ]);
    const headWeights = chunk.reshape(indexHeadWeights(chunk, config, indexer, own), [-1, 1, heads]);
    const weighted = chunk.node("Squeeze", [chunk.node("MatMul", [headWeights, perHead]), chunk.int([1])]);
    const scores = chunk.node("Add", [weighted, prefix(order, 0)]);
    const row = chunk.node("Unsqueeze", [chunk.cast(at.positions, OnnxType.int32), chunk.int([1])]);
    const future = chunk.node("Greater", [prefix(every, 0), row]);
    const visible = chunk.node("Where", [future, chunk.float(Number.NEGATIVE_INFINITY), scores]);
    const [, chosen] = chunk.nodes("TopK", [visible, chunk.int([topk])], { axis: -1, largest: 1, sorted: 0 }, 2);
    return chunk.cast(chosen as Value, OnnxType.int32);
  };
  return overChunks(graph, context, (chunk) => everyOrSelected(chunk, context, score));
}

/** A chunk that ends within the first `index_topk` rows selects every key that it sees: these indices need no scores. */
function everyOrSelected(chunk: Chunk, { config, shape }: SequenceContext, score: (chunk: Chunk) => Value): Value {
  const { graph, seen, end } = chunk;
  const { indexTopk: topk } = config;
  const first = (inside: GraphBuilder) => {
    const range = inside.node("Range", [inside.int(0), inside.int(topk), inside.int(1)]);
    return inside.node("Expand", [
      inside.cast(range, OnnxType.int32),
      inside.int([shape.batch * shape.chunkRows, topk]),
    ]);
  };
  const scored = (inside: GraphBuilder) => score({ ...chunk, graph: inside });
  if (end !== undefined) return end <= topk ? first(graph) : scored(graph);
  return graph.either(graph.node("LessOrEqual", [seen, graph.int(topk)]), first, scored);
}

/** relu(a b^T) of float16 matrices in float32. */
export function reluProduct(graph: GraphBuilder, a: Value, b: Value): Value {
  const attributes = { transB: 1, dtype: OnnxType.float, activation: "RELU" };
  return graph.contrib("GemmFloat8", [a, b], attributes);
}

/** `[batch, m, k]` by `[batch, n, k]` transposed. */
function transposedProduct(graph: GraphBuilder, { kernels }: SequenceContext, a: Value, b: Value): Value {
  if (kernels.fusedMatMul) return graph.contrib("FusedMatMul", [a, b], { transB: 1 });
  return graph.node("MatMul", [a, graph.node("Transpose", [b], { perm: [0, 2, 1] })]);
}
