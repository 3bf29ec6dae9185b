/** Rotary embedding in graphs: the angles are computed once per chunk and shared by attention and indexer of all layers. */

import type { DsaConfig } from "../checkpoint/config/model-config.ts";
import { OnnxType } from "../checkpoint/dtype.ts";
import type { GraphBuilder, Value } from "./graph-builder.ts";
import type { Attributes } from "./graph-parts.ts";

export interface Rotation {
  heads: number;
  headDim: number;
  /** The first `rotaryDim` components of each head are rotated. */
  rotaryDim: number;
  /** Pairs (x0, x1), (x2, x3), ... where true, (x_j, x_{j + dim/2}) where false. */
  interleaved: boolean;
}

/** cos and sin `[S, qk_rope_head_dim / 2]` of int64 positions `[S]`: fp32 angles, as HF's rotary embeddings. */
export function rotaryAngles(graph: GraphBuilder, config: DsaConfig, positions: Value): { cos: Value; sin: Value } {
  const column = graph.node("Unsqueeze", [graph.cast(positions, OnnxType.float), graph.int([1])]);
  const angles = graph.node("Mul", [column, graph.float(config.rope.inverseFrequencies)]);
  const scaled = (value: Value) =>
    config.rope.attentionFactor === 1 ? value : graph.node("Mul", [value, graph.float(config.rope.attentionFactor)]);
  return { cos: scaled(graph.node("Cos", [angles])), sin: scaled(graph.node("Sin", [angles])) };
}

/**
 * Rotates `[S, heads * headDim]` (or any shape of as many elements); the result is `[1, S, heads * headDim]`.
 * Interleaved output stays interleaved, where HF de-interleaves it: queries and keys get the same permutation, so
 * scores agree and cached rows differ from HF's by it.
 */
export function rotate(
  graph: GraphBuilder,
  x: Value,
  { cos, sin }: { cos: Value; sin: Value },
  rotation: Rotation,
): Value {
  const batched = graph.reshape(x, [1, -1, rotation.heads * rotation.headDim]);
  // position_ids of one element is a start row; cos and sin hold just the rows of this chunk, so the start is 0.
  return graph.contrib("RotaryEmbedding", [batched, graph.int([0]), cos, sin], attributesOf(rotation));
}

function attributesOf({ heads, headDim, rotaryDim, interleaved }: Rotation): Attributes {
  return {
    interleaved: interleaved ? 1 : 0,
    num_heads: heads,
    ...(rotaryDim === headDim ? {} : { rotary_embedding_dim: rotaryDim }),
  };
}

/**
 * Rotates rows `[S, heads * headDim]` at their own int64 positions `[S]`; `cos` and `sin` hold all positions. The operator
 * takes no more rows at once than there are positions: `together` of them, which divides S.
 */
export function rotateAt(
  graph: GraphBuilder,
  x: Value,
  { cos, sin, positions, together }: { cos: Value; sin: Value; positions: Value; together: number },
  rotation: Rotation,
): Value {
  const width = rotation.heads * rotation.headDim;
  const inputs = [graph.reshape(x, [-1, together, width]), graph.reshape(positions, [-1, together]), cos, sin];
  return graph.reshape(graph.contrib("RotaryEmbedding", inputs, attributesOf(rotation)), [-1, width]);
}
