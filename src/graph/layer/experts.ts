/** Dense SwiGLU layers and routed mixtures of experts (HF: GlmMoeDsaMLP, GlmMoeDsaMoE with its top-k router). */

import { OnnxType, weightTypes } from "../../checkpoint/dtype.ts";
import {
  isRouted,
  type LayerWeights,
  type MlpWeights,
  type RoutedWeights,
  type Weight,
} from "../../checkpoint/weights.ts";
import type { Value } from "../graph-builder.ts";
import type { ModelGraph } from "../model-graph.ts";

/** HF adds this to the sum of the chosen weights before dividing by it. */
const normalisationEps = 1e-20;

/**
 * How experts run: `branch`, each in an `If`, on its own rows, which suits a CPU; `fused`, ONNX Runtime's MoE kernel over
 * matrices that are put together when the graph is loaded; `products`, batched products over matrices that every run puts together
 * from the weights as they are stored; `chosen`, the same for one row alone, which puts together no more than that row's
 * experts; `dense`, all experts on all rows, for a GPU provider without that kernel.
 */
export type ExpertForm = "branch" | "fused" | "products" | "chosen" | "dense";

const expertForms = {
  branch: mixture,
  fused: fusedMixture,
  products: productsMixture,
  chosen: chosenMixture,
  dense: denseMixture,
};

/** MLP output `[S, hidden_size]` of normed hidden states `h`. */
export function feedForward(graph: ModelGraph, { mlp }: LayerWeights, h: Value, form: ExpertForm): Value {
  if (!isRouted(mlp)) return swiGlu(graph, h, mlp);
  const routed = expertForms[form](graph, mlp, h);
  return mlp.shared === undefined ? routed : graph.node("Add", [routed, swiGlu(graph, h, mlp.shared)]);
}

function swiGlu(graph: ModelGraph, x: Value, { gate, up, down }: MlpWeights): Value {
  const silu = graph.contrib("QuickGelu", [graph.linear(x, gate)], { alpha: { float: 1 } });
  return graph.linear(graph.node("Mul", [silu, graph.linear(x, up)]), down);
}

/**
 * Sigmoid routing with a selection bias, limited to the best groups of experts: chosen experts and fp32 weights, `[S, k]`.
 */
export function route(graph: ModelGraph, weights: RoutedWeights, h: Value) {
  const { config } = graph;
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
function mixture(graph: ModelGraph, weights: RoutedWeights, h: Value): Value {
  const { nRoutedExperts: experts, hiddenSize } = graph.config;
  const { chosen, shares } = route(graph, weights, h);
  const members = membersOf(graph, h, chosen);
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
        (run) => {
          const mask = run.node("Gather", [byExpert, run.int(index)], { axis: 0 });
          const rows = run.node("Squeeze", [run.node("NonZero", [mask]), run.int([0])]);
          return [swiGlu(run, run.node("Gather", [h, rows], { axis: 0 }), expert)];
        },
        (skip) => [skip.float(new Float32Array(), [0, hiddenSize])],
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
function overExperts(graph: ModelGraph, h: Value, chosen: Value, values: Value, elsewhere: number): Value {
  const shape = graph.node("Concat", [graph.dimension(h, 0), graph.int([graph.config.nRoutedExperts])], { axis: 0 });
  const all = graph.node("Expand", [graph.float(elsewhere), shape]);
  return graph.node("ScatterElements", [all, chosen, values], { axis: 1 });
}

/** 1 for every row at the experts that it chose, 0 at the others: float `[S, E]`. */
function membersOf(graph: ModelGraph, h: Value, chosen: Value): Value {
  const ones = graph.node("Expand", [graph.float(1), graph.node("Shape", [chosen])]);
  return overExperts(graph, h, chosen, ones, 0);
}

/** All experts on all rows, weighted: `E / k` times the arithmetic, and nothing that depends on the data. */
function denseMixture(graph: ModelGraph, weights: RoutedWeights, h: Value): Value {
  const { chosen, shares } = route(graph, weights, h);
  const spread = graph.fromFloat(overExperts(graph, h, chosen, shares, 0));
  const outputs = weights.experts.map((expert, index) =>
    graph.node("Mul", [swiGlu(graph, h, expert), graph.slice(spread, 1, index, index + 1)]),
  );
  return outputs.reduce((sum, output) => graph.node("Add", [sum, output]));
}

/** Two matrices of every expert: `[E, 2 I, H]`, gate and up (the kernel wants their rows in turn), and `[E, H, I]`. */
type ExpertMatrices = [fc1: Value, fc2: Value];

function fusedMixture(graph: ModelGraph, weights: RoutedWeights, h: Value): Value {
  const { moeIntermediateSize: inner, hiddenSize } = graph.config;
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
  return moe(graph, route(graph, weights, h), h, [fc1, fc2]);
}

function stack(graph: ModelGraph, weights: RoutedWeights, matrix: (expert: MlpWeights) => Value): Value {
  const parts = weights.experts.map((expert) => graph.node("Unsqueeze", [matrix(expert), graph.int([0])]));
  return graph.node("Concat", parts, { axis: 0 });
}

/** Can experts be read as they are stored? Blocks with scales cannot, nor can experts of several dtypes. */
export function readsAsStored({ experts }: RoutedWeights): boolean {
  const matrices = experts.flatMap(matricesOf);
  const dtypes = new Set(matrices.map(({ dtype }) => dtype));
  const scaled = matrices.some(({ scale }) => scale !== undefined);
  return dtypes.size === 1 && !scaled && [...dtypes].every((dtype) => weightTypes[dtype] !== undefined);
}

/**
 * For models whose experts a host cannot convert before the first run: they lie on the device as they are stored, and matrices
 * are made of them in the branch that reads them and are gone after it. Rows are sorted by their experts and padded to as many for
 * each as the busiest one has, so that two batched products compute all experts at once. (ONNX Runtime's kernel over the same
 * matrices is no quicker than that, tries its tactics first in each of its nodes, and keeps up to a gibibyte in each: docs/gpu.md.)
 */
function productsMixture(graph: ModelGraph, weights: RoutedWeights, h: Value): Value {
  if (!readsAsStored(weights)) return fusedMixture(graph, weights, h);
  const { nRoutedExperts: count, hiddenSize, numExpertsPerTok: k } = graph.config;
  const { chosen, shares } = route(graph, weights, h);
  const [fc1, fc2] = storedMatrices(graph, weights, chosen);
  // Every choice of a row is one of N = rows x k; sorted by expert, then by place.
  const experts = graph.reshape(chosen, [-1]);
  const all = graph.node("Mul", [graph.dimension(h, 0), graph.int([k])]);
  const places = graph.node("Range", [graph.int(0), graph.node("Squeeze", [all, graph.int([0])]), graph.int(1)]);
  const keys = graph.node("Add", [graph.node("Mul", [experts, all]), places]);
  const [sorted, order] = graph.nodes("TopK", [keys, all], { axis: 0, largest: 0, sorted: 1 }, 2) as [Value, Value];
  const expertOf = graph.node("Div", [sorted, all]);
  const members = membersOf(graph, h, chosen);
  const counts = graph.cast(graph.node("ReduceSum", [members, graph.int([0])], { keepdims: 0 }), OnnxType.int64);
  const busiest = graph.node("ReduceMax", [counts, graph.int([0])], { keepdims: 1 });
  const step = graph.int([16]);
  const room = graph.node("Mul", [graph.node("Div", [graph.node("Add", [busiest, graph.int([15])]), step]), step]);
  const first = graph.node("CumSum", [counts, graph.int(0)], { exclusive: 1 });
  const rank = graph.node("Sub", [places, graph.node("Gather", [first, expertOf], { axis: 0 })]);
  const slots = graph.node("Add", [graph.node("Mul", [expertOf, room]), rank]);
  const zeros = (size: Value) => graph.node("Expand", [graph.int([0]), size]);
  const scattered = (size: Value, to: Value, values: Value) =>
    graph.node("ScatterElements", [zeros(size), to, values], { axis: 0 });
  // Slots that stay empty hold the first row, and nobody reads them.
  const rowOf = scattered(
    graph.node("Mul", [room, graph.int([count])]),
    slots,
    graph.node("Div", [order, graph.int([k])]),
  );
  const x = graph.reshape(graph.node("Gather", [h, rowOf], { axis: 0 }), [count, -1, hiddenSize]);
  const both = graph.contrib("FusedMatMul", [x, fc1], { transB: 1 });
  const [gate, up] = graph.nodes("Split", [both], { axis: 2, num_outputs: 2 }, 2) as [Value, Value];
  const silu = graph.contrib("QuickGelu", [gate], { alpha: { float: 1 } });
  const down = graph.contrib("FusedMatMul", [graph.node("Mul", [silu, up]), fc2], { transB: 1 });
  const slotOf = graph.reshape(scattered(all, order, slots), [-1, k]);
  const perRow = graph.node("Gather", [graph.reshape(down, [-1, hiddenSize]), slotOf], { axis: 0 });
  const share = graph.node("Unsqueeze", [graph.fromFloat(shares), graph.int([1])]);
  return graph.node("Squeeze", [graph.node("MatMul", [share, perRow]), graph.int([1])]);
}

/** Of every expert: rows of gate, then those of up, `[E, 2 I, H]`, and `[E, H, I]`. */
function storedMatrices(graph: ModelGraph, weights: RoutedWeights, chosen: Value): ExpertMatrices {
  const { moeIntermediateSize: inner, hiddenSize } = graph.config;
  const groups = storedRows(graph, weights, chosen).map(({ experts: { length }, pairs, downs, rowsFrom }) => {
    const fc1 = rowsFrom(graph.int32(pairs.flat(), [length, 2, 1]), [inner]);
    const fc2 = rowsFrom(graph.int32(downs, [length, 1]), [inner]);
    return [graph.reshape(fc1, [length, 2 * inner, hiddenSize]), graph.reshape(fc2, [length, hiddenSize, inner])];
  });
  const joinedBy = (matrix: number) =>
    joined(
      graph,
      groups.map((group) => group[matrix] as Value),
    );
  return [joinedBy(0), joinedBy(1)];
}

function joined(graph: ModelGraph, parts: Value[]): Value {
  return parts.length === 1 ? (parts[0] as Value) : graph.node("Concat", parts, { axis: 0 });
}

/** The same for one row `[1, hidden_size]`: its experts are read, converted and multiplied, and no others. */
function chosenMixture(graph: ModelGraph, weights: RoutedWeights, h: Value): Value {
  if (!readsAsStored(weights)) return fusedMixture(graph, weights, h);
  const { moeIntermediateSize: inner, hiddenSize, numExpertsPerTok: k } = graph.config;
  const { chosen, shares } = route(graph, weights, h);
  const experts = graph.reshape(chosen, [k]);
  const groups = storedRows(graph, weights, chosen).map(({ first, experts: { length }, pairs, downs, rowsFrom }) => {
    const within = graph.node("Sub", [experts, graph.int(first)]);
    // Of those that lie elsewhere any are read, and left.
    const place = graph.node("Max", [graph.node("Min", [within, graph.int(length - 1)]), graph.int(0)]);
    const startsOf = (starts: number[], shape: number[]) =>
      graph.node("Gather", [graph.int32(starts, shape), place], { axis: 0 });
    return {
      first,
      gatesAndUps: rowsFrom(startsOf(pairs.flat(), [length, 2, 1]), [inner]),
      down: rowsFrom(startsOf(downs, [length, 1]), [inner]),
    };
  });
  type Group = (typeof groups)[number];
  const found = (matrix: "gatesAndUps" | "down", shape: number[]) =>
    groups.slice(1).reduce(
      (before, group) => {
        const here = graph.node("Not", [graph.node("Less", [graph.reshape(experts, shape), graph.int(group.first)])]);
        return graph.node("Where", [here, group[matrix], before]);
      },
      (groups[0] as Group)[matrix],
    );
  const gatesAndUps = graph.reshape(found("gatesAndUps", [k, 1, 1, 1]), [-1, hiddenSize]);
  const both = graph.reshape(graph.node("Gemm", [h, gatesAndUps], { transB: 1 }), [k, 2, inner]);
  const [gate, up] = graph.nodes("Split", [both], { axis: 1, num_outputs: 2 }, 2) as [Value, Value];
  const silu = graph.contrib("QuickGelu", [gate], { alpha: { float: 1 } });
  const down = graph.reshape(found("down", [k, 1, 1]), [k, hiddenSize, inner]);
  const outputs = graph.contrib("FusedMatMul", [graph.node("Mul", [silu, up]), down], { transB: 1 });
  return graph.node("MatMul", [graph.fromFloat(shares), graph.reshape(outputs, [k, hiddenSize])]);
}

/**
 * All matrices of a layer's experts as rows of `hidden_size` elements, in the order in which they are stored: those of one
 * file are one tensor of the graph, so that none has to be put together with another file's.
 * @returns for each group of experts the first one, where each one's gate and up, and its down, begin; and what takes the
 *   `moe_intermediate_size` rows that follow each of some beginnings, spread over a shape, in the graph's precision
 */
function storedRows(graph: ModelGraph, { experts }: RoutedWeights, chosen: Value) {
  const { moeIntermediateSize: inner, hiddenSize } = graph.config;
  // Zero, and known when the router has chosen: what would depend on constants alone ONNX Runtime makes when it loads the graph,
  // on the host, and what depends on nothing it makes long before it is read.
  const zero = graph.node("Mul", [graph.slice(graph.reshape(chosen, [-1]), 0, 0, 1), graph.int([0])]);
  const places = Array.from({ length: inner }, (_, row) => row);
  const late = graph.node("Add", [graph.int32(places), graph.cast(zero, OnnxType.int32)]);
  return byFile(experts).map((group) => {
    const matrices = group.experts.flatMap(matricesOf);
    const { rows, firstRow } = graph.storedTogether(matrices, hiddenSize);
    const type = weightTypes[(matrices[0] as Weight).dtype];
    return {
      ...group,
      pairs: group.experts.map(({ gate, up }) => [firstRow(gate), firstRow(up)]),
      downs: group.experts.map(({ down }) => firstRow(down)),
      rowsFrom: (starts: Value, shape: number[]): Value => {
        const wanted = graph.node("Add", [starts, graph.reshape(late, shape)]);
        const found = graph.node("Gather", [rows, wanted], { axis: 0 });
        return type === graph.settings.precision ? found : graph.cast(found, graph.settings.precision);
      },
    };
  });
}

function matricesOf({ gate, up, down }: MlpWeights): Weight[] {
  return [gate, up, down];
}

/** Experts in order, in groups that lie in one file; one that lies in several is a group of its own. */
function byFile(experts: readonly MlpWeights[]): { first: number; experts: MlpWeights[] }[] {
  const filesOf = (expert: MlpWeights) => new Set(matricesOf(expert).map(({ location }) => location));
  const groups: { first: number; experts: MlpWeights[] }[] = [];
  for (const [index, expert] of experts.entries()) {
    const last = groups.at(-1)?.experts ?? [];
    const files = new Set([...filesOf(expert), ...last.flatMap((each) => [...filesOf(each)])]);
    if (last.length > 0 && files.size === 1) last.push(expert);
    else groups.push({ first: index, experts: [expert] });
  }
  return groups;
}

/**
 * ONNX Runtime's MoE kernel. It routes by a softmax over the k largest inputs: logarithms of our weights make it return
 * exactly these, normalised, and their sum is multiplied back. Logarithms are taken from the largest weight down, where
 * float16 is finest.
 */
function moe(
  graph: ModelGraph,
  { chosen, shares }: ReturnType<typeof route>,
  h: Value,
  [fc1, fc2]: ExpertMatrices,
): Value {
  const largest = graph.node("ReduceMax", [shares, graph.int([-1])], { keepdims: 1 });
  const logs = graph.node("Log", [graph.node("Max", [graph.node("Div", [shares, largest]), graph.float(1e-6)])]);
  const routing = graph.fromFloat(overExperts(graph, h, chosen, logs, -1e4));
  const mixed = graph.contrib("MoE", [h, routing, fc1, "", fc2], {
    activation_type: "swiglu",
    swiglu_fusion: 1,
    activation_alpha: { float: 1 },
    activation_beta: { float: 0 },
    normalize_routing_weights: 1,
    k: graph.config.numExpertsPerTok,
  });
  const total = graph.node("ReduceSum", [shares, graph.int([-1])], { keepdims: 1 });
  return graph.node("Mul", [mixed, graph.fromFloat(total)]);
}
