/** The rows of a batch of sequences, and the query chunks that a sequence graph cuts them into. */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import type { Value } from "../graph-builder.ts";
import type { Queries } from "../layer/dsa-layer.ts";
import type { KernelSettings, Kernels, Provider } from "../layer/kernels.ts";
import type { GraphSettings, ModelGraph } from "../model-graph.ts";

/**
 * Fixed sizes of a sequence graph. Rows are ordered by chunk, then sequence, then position in the chunk. The last chunk runs
 * first: it needs the most memory, and the buffers that it leaves then hold every other.
 */
export interface SequenceShape {
  batch: number;
  /** Rows of a sequence: `chunks * chunkRows`; a shorter sequence is padded after its end. */
  length: number;
  chunks: number;
  chunkRows: number;
}

export interface SequenceGraphSettings extends KernelSettings {
  precision: GraphSettings["precision"];
  provider: Provider;
  /** Layer boundaries are inputs and outputs, so that a run can start at any layer. */
  boundaries: boolean;
  /** Tokens of the model's own distribution that are kept, where divergences from it come out beside losses. */
  top?: number;
}

/** What every layer reads. */
export interface SequenceContext {
  config: DsaConfig;
  shape: SequenceShape;
  settings: SequenceGraphSettings;
  kernels: Kernels;
  /** cos and sin of all positions, `[length, qk_rope_head_dim / 2]`. */
  cos: Value;
  sin: Value;
  /** int64 `[rows]`. */
  positions: Value;
}

/** A sequence no longer than `index_topk` selects all that it sees: its graph has no indexers. */
export function selectsKeys(config: DsaConfig, shape: SequenceShape): boolean {
  return shape.length > config.indexTopk;
}

/** Bytes that a row takes after attention at its widest: values of all heads, then the MLP. */
function restRowBytes(config: DsaConfig): number {
  const { numAttentionHeads, vHeadDim, intermediateSize, moeIntermediateSize, numExpertsPerTok } = config;
  const experts = config.sparseLayers.includes(true) ? moeIntermediateSize * numExpertsPerTok : 0;
  return 4 * numAttentionHeads * vHeadDim + 16 * Math.max(intermediateSize, experts);
}

/**
 * Up to here, what follows attention takes all rows at once: matrix products of one chunk leave a large GPU half idle. Where there is
 * more, chunks are so large that it gains nothing (docs/gpu.md: 32,768 tokens).
 */
const restBytes = 2.75 * 2 ** 30;

/** Bytes of the tensors after attention where those take all rows at once, 0 where they go chunk by chunk. */
export function postAttentionBytes(config: DsaConfig, { batch, length }: SequenceShape): number {
  const bytes = batch * length * restRowBytes(config);
  return bytes <= restBytes ? bytes : 0;
}

/** One chunk of query rows: the graph to add to, and what it covers. */
export interface QueryChunk extends Queries {
  /** Rows of each sequence. */
  count: number;
  /** int64 `[chunk rows]`. */
  positions: () => Value;
  /** Keys up to the chunk's end, int64 scalar: no row of it sees more. */
  seen: Value;
  /** The same number, where chunks are written out. */
  end: number | undefined;
}

/** Runs `body` chunk by chunk and joins the results along the rows. */
export function overChunks(
  graph: ModelGraph,
  { config, shape, kernels, cos, sin, positions }: SequenceContext,
  body: (chunk: QueryChunk) => Value,
  { first = 0 }: { first?: number } = {},
): Value {
  const { length, chunks, chunkRows, batch } = shape;
  const size = chunkRows * batch;
  const chunkOf = (
    { graph: inner, rows, count = chunkRows }: Pick<QueryChunk, "graph" | "rows"> & { count?: number },
    seen: Value,
    end: number | undefined,
  ): QueryChunk => {
    let own: Value | undefined;
    const ownPositions = (): Value => {
      own ??= rows(positions);
      return own;
    };
    const angles = () => ({ cos, sin, places: { positions: ownPositions(), together: chunkRows } });
    return { graph: inner, rows, count, positions: ownPositions, angles, seen, end };
  };
  if (chunks === 1) return body(chunkOf({ graph, rows: (all) => all }, graph.int(length), length));
  if (!isWrittenOut({ config, shape, kernels })) {
    const [stacked] = graph.loop(graph.int(chunks), (inner, trip) => {
      const index = inner.node("Sub", [inner.int(chunks - 1), trip]);
      const start = inner.node("Mul", [inner.node("Unsqueeze", [index, inner.int([0])]), inner.int([size])]);
      const end = inner.node("Add", [start, inner.int([size])]);
      const next = inner.node("Add", [index, inner.int(1)]);
      const seen = inner.node("Mul", [next, inner.int(chunkRows)]);
      return [
        body(
          chunkOf(
            { graph: inner, rows: (all) => inner.node("Slice", [all, start, end, inner.int([0])]) },
            seen,
            undefined,
          ),
        ),
      ];
    });
    return mergeFirst(graph, stacked as Value, chunks);
  }
  // ONNX Runtime runs first what was added last.
  const parts: Value[] = [];
  if (first > 0) {
    const rows = (all: Value) => graph.slice(all, 0, 0, first * size);
    const end = first * chunkRows;
    parts.push(body(chunkOf({ graph, rows, count: end }, graph.int(end), end)));
  }
  for (let index = first; index < chunks; index++) {
    const end = (index + 1) * chunkRows;
    const rows = (all: Value) => graph.slice(all, 0, index * size, (index + 1) * size);
    parts.push(body(chunkOf({ graph, rows }, graph.int(end), end)));
  }
  return graph.node("Concat", parts, { axis: 0 });
}

/** Are all chunks written out one by one? Otherwise they are a loop. */
export function isWrittenOut({
  config,
  shape,
  kernels,
}: Pick<SequenceContext, "config" | "shape" | "kernels">): boolean {
  return shape.chunks > 1 && shape.chunks * config.numHiddenLayers <= kernels.writtenOut;
}

/** Are queries made for all rows at once? Where what follows attention goes chunk by chunk, so do they: either would need too much. */
export function asksTogether(graph: Pick<SequenceContext, "config" | "shape" | "kernels">): boolean {
  return graph.kernels.atOnce && isWrittenOut(graph) && postAttentionBytes(graph.config, graph.shape) > 0;
}

/** `[chunks, n, ...]`, the last chunk in front, to `[chunks * n, ...]` in order. */
function mergeFirst(graph: ModelGraph, lastFirst: Value, chunks: number): Value {
  const ends = [graph.int([-1]), graph.int([-chunks - 1]), graph.int([0]), graph.int([-1])];
  const stacked = graph.node("Slice", [lastFirst, ...ends]);
  const rest = graph.node("Shape", [stacked], { start: 2 });
  return graph.node("Reshape", [stacked, graph.node("Concat", [graph.int([-1]), rest], { axis: 0 })]);
}

/** Rows `[rows, width]` put in the order of sequences and positions, `[batch * length, width]`. */
export function inOrder(graph: ModelGraph, { shape }: SequenceContext, x: Value, width: number): Value {
  const { batch, chunks } = shape;
  if (chunks === 1 || batch === 1) return x;
  const cut = graph.reshape(x, [chunks, batch, -1, width]);
  return graph.reshape(graph.node("Transpose", [cut], { perm: [1, 0, 2, 3] }), [-1, width]);
}

/** The way back from `inOrder`: rows `[batch * length, width]` put in the order of a graph's rows. */
export function inRowOrder(graph: ModelGraph, { shape }: SequenceContext, x: Value, width: number): Value {
  const { batch, chunks } = shape;
  if (chunks === 1 || batch === 1) return x;
  const cut = graph.reshape(x, [batch, chunks, -1, width]);
  return graph.reshape(graph.node("Transpose", [cut], { perm: [1, 0, 2, 3] }), [-1, width]);
}
