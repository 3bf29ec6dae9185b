/**
 * What is below the first layer and above the last one: embedding, logits, losses, and the head of the KL objective.
 *
 * The latter says how far a pattern's next-token distribution is from that of the model's own pattern. Of the latter the
 * `top` most likely tokens and the mass of all others are kept, row by row; the divergence between two such coarse
 * distributions is at most that of the whole ones (data processing inequality).
 */

import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType, weightTypes } from "../../checkpoint/dtype.ts";
import type { ModelWeights } from "../../checkpoint/weights.ts";
import type { GraphSpec } from "../exported/contract.ts";
import type { Value } from "../graph-builder.ts";
import { ModelGraph } from "../model-graph.ts";
import type { ModelProto } from "../onnx_pb.ts";

/** Rows of the embedding table in the graph's precision, cast after the lookup: the table stays in its stored dtype. */
export function embedding(graph: ModelGraph, weights: ModelWeights, ids: Value): Value {
  const rows = graph.node("Gather", [graph.stored(weights.embedding), ids], { axis: 0 });
  const { precision } = graph.settings;
  return weightTypes[weights.embedding.dtype] === precision ? rows : graph.cast(rows, precision);
}

export function logits(graph: ModelGraph, weights: ModelWeights, hidden: Value): Value {
  return graph.linear(graph.rmsNorm(hidden, weights.finalNorm, graph.config.rmsNormEps), weights.lmHead);
}

/** -log p(target) of each row, `[S]`. */
export function negativeLogLikelihood(graph: ModelGraph, scores: Value, targets: Value): Value {
  return targetLoss(graph, graph.node("LogSoftmax", [scores], { axis: -1 }), targets);
}

/** The same from log-probabilities `[S, vocab]`. */
function targetLoss(graph: ModelGraph, logProbabilities: Value, targets: Value): Value {
  const column = graph.node("Unsqueeze", [targets, graph.int([1])]);
  const chosen = graph.node("GatherElements", [logProbabilities, column], { axis: 1 });
  return graph.node("Squeeze", [graph.node("Neg", [chosen]), graph.int([1])]);
}

/** A sum of float32 probabilities is no closer to 1 than this: less mass than it is taken for it. */
const leastMass = 1e-7;

/** Width of a row of the model's own distribution: loss, log-probabilities, token ids. */
export const ownWidth = (top: number): number => 1 + 2 * top;
/** Width of a row of a divergence: loss, KL. */
export const divergenceWidth = 2;

/** What goes in and comes out beside hidden states; ids are exact in float32 up to 2^24. */
export const divergenceNames = { own: "own_pattern", baseline: "own_distribution", output: "divergence" } as const;

/** How many tokens can be kept. */
export function keptTokens({ vocabSize }: DsaConfig, top: number): number {
  return Math.min(top, vocabSize);
}

function divergenceSpec(config: DsaConfig, top: number): GraphSpec {
  const { own, baseline, output } = divergenceNames;
  return {
    inputs: [
      { name: "hidden_states", type: OnnxType.float, shape: ["sequence_length", config.hiddenSize] },
      { name: "target_ids", type: OnnxType.int64, shape: ["sequence_length"] },
      { name: baseline, type: OnnxType.float, shape: ["baseline_rows", ownWidth(top)] },
      { name: own, type: OnnxType.bool, shape: [] },
    ],
    outputs: [{ name: output, type: OnnxType.float, shape: ["sequence_length", "width"] }],
  };
}

/** The head as a stage. It is no part of the contract: an exported folder has its weights as well. */
export function buildDivergenceStage(config: DsaConfig, weights: ModelWeights, top: number): ModelProto {
  const graph = new ModelGraph(config);
  const spec = divergenceSpec(config, top);
  for (const { name, type, shape } of spec.inputs) graph.input(name, type, shape);
  const scores = logits(graph, weights, "hidden_states");
  const logProbabilities = graph.node("LogSoftmax", [scores], { axis: -1 });
  const { own, baseline } = divergenceNames;
  const result = divergence(graph, logProbabilities, "target_ids", baseline, own, top);
  for (const { name, type, shape } of spec.outputs) graph.output(name, result, type, shape);
  return graph.model("divergence");
}

/**
 * Rows of the model's own pattern, `[S, 1 + 2 top]`, which are the baseline of every other pattern's, `[S, 2]`.
 * @param logProbabilities `[S, vocab]`
 * @param baseline rows of the own pattern; without rows where these are asked for
 * @param own bool: whether they are
 */
export function divergence(
  graph: ModelGraph,
  logProbabilities: Value,
  targets: Value,
  baseline: Value,
  own: Value,
  top: number,
): Value {
  const loss = graph.node("Unsqueeze", [targetLoss(graph, logProbabilities, targets), graph.int([1])]);
  return graph.either(
    own,
    (inside) => {
      const [values, ids] = inside.nodes(
        "TopK",
        [logProbabilities, inside.int([top])],
        { axis: -1, largest: 1, sorted: 0 },
        2,
      );
      const asFloats = inside.cast(ids as Value, OnnxType.float);
      return inside.node("Concat", [loss, values as Value, asFloats], { axis: 1 });
    },
    (inside) => inside.node("Concat", [loss, fromBaseline(inside, logProbabilities, baseline, top)], { axis: 1 }),
  );
}

/** KL(baseline || pattern) of each row, nats, never negative: `[S, 1]`. */
function fromBaseline(graph: ModelGraph, logProbabilities: Value, baseline: Value, top: number): Value {
  const last = graph.int([-1]);
  const kept = graph.slice(baseline, 1, 1, 1 + top);
  const ids = graph.cast(graph.slice(baseline, 1, 1 + top, ownWidth(top)), OnnxType.int64);
  const found = graph.node("GatherElements", [logProbabilities, ids], { axis: 1 });
  const [keptMass, foundMass] = [kept, found].map((logs) => graph.node("Exp", [logs])) as [Value, Value];
  const terms = graph.node("Mul", [keptMass, graph.node("Sub", [kept, found])]);
  const rest = ([keptMass, foundMass] as const).map((mass) =>
    graph.node("Max", [
      graph.node("Sub", [graph.float(1), graph.node("ReduceSum", [mass, last])]),
      graph.float(leastMass),
    ]),
  ) as [Value, Value];
  const [keptRest, foundRest] = rest.map((mass) => graph.node("Log", [mass])) as [Value, Value];
  const restTerm = graph.node("Mul", [rest[0], graph.node("Sub", [keptRest, foundRest])]);
  const sum = graph.node("Add", [graph.node("ReduceSum", [terms, last]), restTerm]);
  // The sum is negative by rounding only; a search that stops early relies on terms that never are.
  return graph.node("Max", [sum, graph.float(0)]);
}
