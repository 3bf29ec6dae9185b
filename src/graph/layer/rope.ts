/** Rotary embedding: the angles are computed once and shared by attention and indexer of all layers. */

import { OnnxType } from "../../checkpoint/dtype.ts";
import type { Value } from "../graph-builder.ts";
import type { ModelGraph } from "../model-graph.ts";

export interface Rotation {
  heads: number;
  headDim: number;
  /** The first `rotaryDim` components of each head are rotated. */
  rotaryDim: number;
  /** Pairs (x0, x1), (x2, x3), ... where true, (x_j, x_{j + dim/2}) where false. */
  interleaved: boolean;
}

/** cos and sin, `[rows, qk_rope_head_dim / 2]`: of the rows themselves, or of all positions where `places` says which. */
export interface RowAngles {
  cos: Value;
  sin: Value;
  places?: {
    /** int64 `[rows]`. */
    positions: Value;
    /** The operator takes no more rows at once than there are positions: so many, which divide the rows. */
    together: number;
  };
}

/** cos and sin `[S, qk_rope_head_dim / 2]` of int64 positions `[S]`: fp32 angles, as HF's rotary embeddings. */
export function rotaryAngles(graph: ModelGraph, positions: Value): { cos: Value; sin: Value } {
  const { config } = graph;
  const column = graph.node("Unsqueeze", [graph.cast(positions, OnnxType.float), graph.int([1])]);
  const angles = graph.node("Mul", [column, graph.float(config.rope.inverseFrequencies)]);
  const scaled = (value: Value) =>
    config.rope.attentionFactor === 1 ? value : graph.node("Mul", [value, graph.float(config.rope.attentionFactor)]);
  return { cos: scaled(graph.node("Cos", [angles])), sin: scaled(graph.node("Sin", [angles])) };
}

/**
 * Rotates `[rows, heads * headDim]`; takes and returns any shape of as many elements. Interleaved output stays interleaved,
 * where HF de-interleaves it: queries and keys get the same permutation, so scores agree and cached rows differ from HF's
 * by it.
 */
export function rotate(graph: ModelGraph, x: Value, { cos, sin, places }: RowAngles, rotation: Rotation): Value {
  const { heads, headDim, rotaryDim, interleaved } = rotation;
  const width = heads * headDim;
  const [batched, positions] =
    places === undefined
      ? // Positions of one element are a start row: cos and sin hold just these rows, so it is 0.
        [graph.reshape(x, [1, -1, width]), graph.int([0])]
      : [graph.reshape(x, [-1, places.together, width]), graph.reshape(places.positions, [-1, places.together])];
  return graph.contrib("RotaryEmbedding", [batched, positions, cos, sin], {
    interleaved: interleaved ? 1 : 0,
    num_heads: heads,
    ...(rotaryDim === headDim ? {} : { rotary_embedding_dim: rotaryDim }),
  });
}
