/** Dense SwiGLU layers and routed mixtures of experts (HF: GlmMoeDsaMLP, GlmMoeDsaMoE with its top-k router). */

import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType, weightTypes } from "../../checkpoint/dtype.ts";
import {
  isRouted,
  type LayerWeights,
  type MlpWeights,
  type RoutedWeights,
  type Weight,
} from "../../checkpoint/weights.ts";
import type { GraphBuilder, Value } from "../graph-builder.ts";

/** HF adds this to the sum of the chosen weights before dividing by it. */
const normalisationEps = 1e-20;

/**
 * How experts run: `branch`, each behind an `If` on its own rows, which suits a CPU; `fused`, ONNX Runtime's MoE kernel over
 * matrices that are put together when the graph is loaded; `joined`, the same kernel over matrices that every run puts
 * together, where weights are converted in every run; `dense`, all experts on all rows, for a GPU provider without that kernel.
 */
export type ExpertForm = "branch" | "fused" | "joined" | "dense";

const expertForms = { branch: mixture, fused: fusedMixture, joined: joinedMixture, dense: denseMixture };

/** MLP output `[S, hidden_size]` of normed hidden states `h`. */
export function feedForward(
  graph: GraphBuilder,
  config: DsaConfig,
  { mlp }: LayerWeights,
  h: Value,
  form: ExpertForm,
): Value {
  if (!isRouted(mlp)) return swiGlu(graph, h, mlp);
  const routed = expertForms[form](graph, config, mlp, h);
  return mlp.shared === undefined ? routed : graph.node("Add", [routed, swiGlu(graph, h, mlp.shared)]);
}

function swiGlu(graph: GraphBuilder, x: Value, { gate, up, down }: MlpWeights): Value {
  const silu = graph.contrib("QuickGelu", [graph.linear(x, gate)], { alpha: { float: 1 } });
  return graph.linear(graph.node("Mul", [silu, graph.linear(x, up)]), down);
}

/**
 * Sigmoid routing with a selection bias, limited to the best groups of experts: chosen experts and fp32 weights, `[S, k]`.
 */
export function route(graph: GraphBuilder, config: DsaConfig, weights: RoutedWeights, h: Value) {
  const { nRoutedExperts: experts, numExpertsPerTok: k, nGroup: groups, topkGroup } = config;
  const float = graph.settings.precision === OnnxType.float ? h : graph.cast(h, OnnxType.float);
  const probabilities = graph.node("Sigmoid", [graph.linear(float, weights.router, undefined, OnnxType.float)]);
  let choice = graph.node("Add", [probabilities, graph.weight(weights.correctionBias, OnnxType.float)]);
  if (groups > 1) {
    const grouped = graph.reshape(choice, [-1, groups, experts / groups]);
    const [best] = graph.nodes("TopK", [grouped, graph.int([2])], { axis: -1, sorted: 0 }, 2) as [Value, Value];
    const score = graph.node("ReduceSum", [best, graph.int([-1])], { keepdims: 0 });
    const [, kept] = graph.nodes("TopK", [score, graph.int([topkGroup])], { axis: -1, sorted: 0 }, 2) as [Value, Value];
    // Scores of closed groups: added to minus infinity, or multiplied by zero.
    const [limit, shut, open] =
      weights.closedScore === 0 ? (["Mul", 0, 1] as const) : (["Add", Number.NEGATIVE_INFINITY, 0] as const);
    const closed = graph.node("Expand", [graph.float(shut), graph.node("Shape", [score])]);
    const opens = graph.node("Expand", [graph.float(open), graph.node("Shape", [kept])]);
    const opened = graph.node("ScatterElements", [closed, kept, opens], { axis: 1 });
    const limited = graph.node(limit, [grouped, graph.node("Unsqueeze", [opened, graph.int([2])])]);
    choice = graph.reshape(limited, [-1, experts]);
  }
  const [, chosen] = graph.nodes("TopK", [choice, graph.int([k])], { axis: -1, sorted: 1 }, 2) as [Value, Value];
  let shares = graph.node("GatherElements", [probabilities, chosen], { axis: 1 });
  if (config.normTopkProb) {
    const total = graph.node("ReduceSum", [shares, graph.int([-1])], { keepdims: 1 });
    shares = graph.node("Div", [shares, graph.node("Add", [total, graph.float(normalisationEps)])]);
  }
  if (config.routedScalingFactor !== 1) {
    shares = graph.node("Mul", [shares, graph.float(config.routedScalingFactor)]);
  }
  return { chosen, shares };
}

/**
 * Runs only the experts that some row chose, each on its own rows. Their outputs are stacked expert by expert, and a
 * row finds its k results in the stack at (first row of the expert) + (its rank among the expert's rows): no scatter,
 * no order of addition that depends on threads.
 */
function mixture(graph: GraphBuilder, config: DsaConfig, weights: RoutedWeights, h: Value): Value {
  const { nRoutedExperts: experts, hiddenSize } = config;
  const { chosen, shares } = route(graph, config, weights, h);
  const ones = graph.node("Expand", [graph.float(1), graph.node("Shape", [chosen])]);
  const members = overExperts(graph, config, h, chosen, ones, 0);
  const byExpert = graph.node("Transpose", [members], { perm: [1, 0] });
  const counts = graph.node("ReduceSum", [members, graph.int([0])], { keepdims: 0 });
  const busy = graph.nodes(
    "Split",
    [graph.node("Greater", [counts, graph.float(0)])],
    { axis: 0, num_outputs: experts },
    experts,
  );
  const results = weights.experts.map(
    (expert, index) =>
      graph.branch(
        busy[index] as Value,
        1,
        (run) => {
          const mask = run.node("Gather", [byExpert, run.int(index)], { axis: 0 });
          const rows = run.node("Squeeze", [run.node("NonZero", [mask]), run.int([0])]);
          return [swiGlu(run, run.node("Gather", [h, rows], { axis: 0 }), expert)];
        },
        (skip) => [skip.empty([0, hiddenSize])],
      )[0] as Value,
  );
  const stack = graph.node("Concat", results, { axis: 0 });
  const rank = graph.node("CumSum", [members, graph.int(0)], { exclusive: 1 });
  const first = graph.node("CumSum", [counts, graph.int(0)], { exclusive: 1 });
  const places = graph.node("GatherElements", [graph.node("Add", [rank, first]), chosen], { axis: 1 });
  const perRow = graph.node("Gather", [stack, graph.cast(places, OnnxType.int64)], { axis: 0 });
  const weighted = graph.node("MatMul", [graph.node("Unsqueeze", [shares, graph.int([1])]), perRow]);
  return graph.node("Squeeze", [weighted, graph.int([1])]);
}

/** A float value for every row and expert, `[S, E]`: `values` at the chosen ones, `elsewhere` at the others. */
function overExperts(
  graph: GraphBuilder,
  config: DsaConfig,
  h: Value,
  chosen: Value,
  values: Value,
  elsewhere: number,
): Value {
  const shape = graph.node("Concat", [graph.dimension(h, 0), graph.int([config.nRoutedExperts])], { axis: 0 });
  const all = graph.node("Expand", [graph.float(elsewhere), shape]);
  return graph.node("ScatterElements", [all, chosen, values], { axis: 1 });
}

/** All experts on all rows, weighted: `E / k` times the arithmetic, and nothing that depends on the data. */
function denseMixture(graph: GraphBuilder, config: DsaConfig, weights: RoutedWeights, h: Value): Value {
  const { chosen, shares } = route(graph, config, weights, h);
  const spread = graph.fromFloat(overExperts(graph, config, h, chosen, shares, 0));
  const outputs = weights.experts.map((expert, index) =>
    graph.node("Mul", [swiGlu(graph, h, expert), graph.slice(spread, 1, index, index + 1)]),
  );
  return outputs.reduce((sum, output) => graph.node("Add", [sum, output]));
}

/** The kernel's two matrices of every expert: `[E, 2 I, H]`, rows of gate and up in turn, and `[E, H, I]`. */
type ExpertMatrices = [fc1: Value, fc2: Value];

function fusedMixture(graph: GraphBuilder, config: DsaConfig, weights: RoutedWeights, h: Value): Value {
  const { moeIntermediateSize: inner, hiddenSize } = config;
  const { name } = weights.router;
  const fc1 = graph.derived(`${name} fc1`, (outer) =>
    stack(outer, weights, (expert) => {
      const pairs = [expert.gate, expert.up].map((weight) =>
        outer.node("Unsqueeze", [outer.weight(weight), outer.int([1])]),
      );
      return outer.reshape(outer.node("Concat", pairs, { axis: 1 }), [2 * inner, hiddenSize]);
    }),
  );
  const fc2 = graph.derived(`${name} fc2`, (outer) => stack(outer, weights, (expert) => outer.weight(expert.down)));
  return moe(graph, config, weights, h, [fc1, fc2]);
}

function stack(graph: GraphBuilder, weights: RoutedWeights, matrix: (expert: MlpWeights) => Value): Value {
  const parts = weights.experts.map((expert) => graph.node("Unsqueeze", [matrix(expert), graph.int([0])]));
  return graph.node("Concat", parts, { axis: 0 });
}

/**
 * For graphs whose weights are converted in every run: experts go to the device as they are stored, are put together there by
 * a few operators in the branch that reads them, and are gone after it. Blocks with scales are put together one by one.
 */
function joinedMixture(graph: GraphBuilder, config: DsaConfig, weights: RoutedWeights, h: Value): Value {
  const { nRoutedExperts: experts, moeIntermediateSize: inner, hiddenSize } = config;
  const matrices = weights.experts.flatMap(({ gate, up, down }) => [gate, up, down]);
  const { dtype } = matrices[0] as Weight;
  const type = weightTypes[dtype];
  if (type === undefined || matrices.some((weight) => weight.dtype !== dtype || weight.scale !== undefined)) {
    return fusedMixture(graph, config, weights, h);
  }
  /** The experts' matrices below each other, `[E rows, columns]`. */
  const join = (matrix: (expert: MlpWeights) => Weight): Value => {
    const parts = weights.experts.map((expert) => graph.stored(matrix(expert)));
    return graph.node("Concat", parts, { axis: 0 });
  };
  const own = (x: Value) => (type === graph.settings.precision ? x : graph.cast(x, graph.settings.precision));
  const pairs = [join(({ gate }) => gate), join(({ up }) => up)].map((rows) =>
    graph.reshape(rows, [experts * inner, 1, hiddenSize]),
  );
  const fc1 = graph.reshape(graph.node("Concat", pairs, { axis: 1 }), [experts, 2 * inner, hiddenSize]);
  const fc2 = graph.reshape(
    join(({ down }) => down),
    [experts, hiddenSize, inner],
  );
  return moe(graph, config, weights, h, [own(fc1), own(fc2)]);
}

/**
 * ONNX Runtime's MoE kernel. It routes by a softmax over the k largest inputs: logarithms of our weights make it give
 * exactly these, normalised, and their sum is multiplied back. Logarithms are taken from the largest weight down, where
 * float16 is finest.
 */
function moe(
  graph: GraphBuilder,
  config: DsaConfig,
  weights: RoutedWeights,
  h: Value,
  [fc1, fc2]: ExpertMatrices,
): Value {
  const { chosen, shares } = route(graph, config, weights, h);
  const largest = graph.node("ReduceMax", [shares, graph.int([-1])], { keepdims: 1 });
  const logs = graph.node("Log", [graph.node("Max", [graph.node("Div", [shares, largest]), graph.float(1e-6)])]);
  const routing = graph.fromFloat(overExperts(graph, config, h, chosen, logs, -1e4));
  const mixed = graph.contrib("MoE", [h, routing, fc1, "", fc2], {
    activation_type: "swiglu",
    swiglu_fusion: 1,
    activation_alpha: { float: 1 },
    activation_beta: { float: 0 },
    normalize_routing_weights: 1,
    k: config.numExpertsPerTok,
  });
  const total = graph.node("ReduceSum", [shares, graph.int([-1])], { keepdims: 1 });
  return graph.node("Mul", [mixed, graph.fromFloat(total)]);
}
