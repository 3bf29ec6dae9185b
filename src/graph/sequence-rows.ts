/** The rows of a batch of sequences, and the query chunks that a sequence graph cuts them into. */
import type { DsaConfig } from "../checkpoint/model-config.ts";
import type { GraphBuilder, GraphSettings, Value } from "./graph-builder.ts";

/** Fixed sizes of a sequence graph. Rows are ordered by chunk, then sequence, then position in the chunk. */
export interface SequenceShape {
  batch: number;
  /** Rows of a sequence: `chunks * chunkRows`; a shorter sequence is padded behind its end. */
  length: number;
  chunks: number;
  chunkRows: number;
}

export interface SequenceGraphSettings {
  precision: GraphSettings["precision"];
  /** Chunks as a `Loop`, or written out where the provider has no `Loop`. */
  loops: boolean;
  /** Layer boundaries are inputs and outputs, so that a run can start at any layer. */
  boundaries: boolean;
}

/** What every layer reads. */
export interface SequenceContext {
  config: DsaConfig;
  shape: SequenceShape;
  settings: SequenceGraphSettings;
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

/** Cuts the rows of this chunk out of a tensor with all rows in front. */
export type RowsOf = (all: Value) => Value;

/** Runs `body` chunk by chunk and joins the results along the rows. `index` is the chunk's number, an int64 scalar. */
export function overChunks(
  graph: GraphBuilder,
  { shape, settings }: SequenceContext,
  body: (chunk: GraphBuilder, rows: RowsOf, index: Value) => Value,
): Value {
  const { chunks, chunkRows, batch } = shape;
  const size = chunkRows * batch;
  if (chunks === 1) return body(graph, (all) => all, graph.int(0));
  if (settings.loops) {
    const [stacked] = graph.loop(graph.int(chunks), 1, (chunk, index) => {
      const start = chunk.node("Mul", [chunk.node("Unsqueeze", [index, chunk.int([0])]), chunk.int([size])]);
      const end = chunk.node("Add", [start, chunk.int([size])]);
      return [body(chunk, (all) => chunk.node("Slice", [all, start, end, chunk.int([0])]), index)];
    });
    return mergeFirst(graph, stacked as Value);
  }
  const parts = Array.from({ length: chunks }, (_, chunk) =>
    body(graph, (all) => graph.slice(all, 0, chunk * size, (chunk + 1) * size), graph.int(chunk)),
  );
  return graph.node("Concat", parts, { axis: 0 });
}

/** `[chunks, n, ...]` to `[chunks * n, ...]`. */
function mergeFirst(graph: GraphBuilder, stacked: Value): Value {
  const rest = graph.node("Shape", [stacked], { start: 2 });
  return graph.node("Reshape", [stacked, graph.node("Concat", [graph.int([-1]), rest], { axis: 0 })]);
}

/** `[rows, width]` in chunk order to `[batch, length, width]`. */
export function bySequence(graph: GraphBuilder, { shape }: SequenceContext, x: Value, width: number): Value {
  const { batch, length, chunks, chunkRows } = shape;
  if (chunks === 1 || batch === 1) return graph.reshape(x, [batch, length, width]);
  const cut = graph.reshape(x, [chunks, batch, chunkRows, width]);
  return graph.reshape(graph.node("Transpose", [cut], { perm: [1, 0, 2, 3] }), [batch, length, width]);
}
