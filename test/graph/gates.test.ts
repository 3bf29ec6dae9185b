/** Gates of norms and of heads' values, which not every architecture has, and routers with closed groups, against the formulas. */
import { expect, test } from "vitest";
import { OnnxType } from "../../src/checkpoint/dtype.ts";
import type { Weight } from "../../src/checkpoint/weights.ts";
import { encodeModel } from "../../src/graph/graph-builder.ts";
import { gatedNorm } from "../../src/graph/layer/dsa-layer.ts";
import { route } from "../../src/graph/layer/experts.ts";
import { gatedValues } from "../../src/graph/layer/latent-attention.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { ModelGraph } from "../../src/graph/model-graph.ts";
import { floats, loadRuntime, OnnxSession } from "../../src/runtime/session/onnx-session.ts";
import { fixturePath } from "../oracle.ts";

const rows = 3;
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const numbers = (count: number, seed: number) =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.7 + seed));
const named = (name: string, shape: number[]): Weight => ({
  ...{ name, shape, dtype: "F32", file: "", location: "", offset: 0, length: 0 },
});

/** `x W^T` of one row. */
function product(x: Float32Array, weight: Float32Array): Float32Array {
  const outputs = weight.length / x.length;
  return Float32Array.from({ length: outputs }, (_, o) =>
    x.reduce((sum, value, i) => sum + value * (weight[o * x.length + i] as number), 0),
  );
}

async function run(graph: ModelGraph, feeds: Record<string, { data: Float32Array; shape: number[] }>) {
  const { Tensor } = await loadRuntime();
  const session = await OnnxSession.create(encodeModel(graph.model("gates")), "gates", {
    device: "cpu",
    threads: 1,
    folder: ".",
  });
  const tensors = Object.entries(feeds).map(([name, { data, shape }]) => [name, new Tensor("float32", data, shape)]);
  try {
    return floats((await session.run(Object.fromEntries(tensors))).result, "result");
  } finally {
    await session.release();
  }
}

test("a norm's gate multiplies rows by sigmoid(up(silu(down(y))))", async () => {
  const { config } = await openModel(fixturePath("glm-groups"));
  const [width, rank] = [6, 2];
  const graph = new ModelGraph(config);
  const y = graph.input("y", OnnxType.float, [rows, width]);
  const gate = { down: named("down", [rank, width]), up: named("up", [width, rank]) };
  for (const weight of [gate.down, gate.up]) graph.parameter(weight);
  graph.output("result", gatedNorm(graph, y, gate), OnnxType.float, [rows, width]);
  const [data, down, up] = [numbers(rows * width, 1), numbers(rank * width, 2), numbers(width * rank, 3)];
  const found = await run(graph, {
    y: { data, shape: [rows, width] },
    down: { data: down, shape: [rank, width] },
    up: { data: up, shape: [width, rank] },
  });
  for (let row = 0; row < rows; row++) {
    const own = data.subarray(row * width, (row + 1) * width);
    const inner = product(own, down).map((x) => x * sigmoid(x));
    const wanted = product(inner, up).map((x, i) => sigmoid(x) * (own[i] as number));
    for (const [i, value] of wanted.entries()) expect(found[row * width + i]).toBeCloseTo(value, 6);
  }
});

test("values are multiplied by the sigmoid of the last rows of each head's block of q_b_proj", async () => {
  const { config } = await openModel(fixturePath("glm-groups"));
  const { numAttentionHeads: heads, qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim } = config;
  const [block, width] = [nope + rope + vHeadDim, 5];
  const graph = new ModelGraph(config);
  const asked = graph.input("asked", OnnxType.float, [rows, width]);
  const values = graph.input("values", OnnxType.float, [rows, heads * vHeadDim]);
  const qB = named("q_gate", [heads * block, width]);
  graph.parameter(qB);
  const gated = gatedValues(graph, { qB, gatesValues: true }, asked, values);
  graph.output("result", gated, OnnxType.float, [rows, heads * vHeadDim]);
  const [queries, all, weight] = [
    numbers(rows * width, 1),
    numbers(rows * heads * vHeadDim, 2),
    numbers(heads * block * width, 3),
  ];
  const found = await run(graph, {
    asked: { data: queries, shape: [rows, width] },
    values: { data: all, shape: [rows, heads * vHeadDim] },
    q_gate: { data: weight, shape: [heads * block, width] },
  });
  for (let row = 0; row < rows; row++) {
    const gates = product(queries.subarray(row * width, (row + 1) * width), weight);
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < vHeadDim; i++) {
        const at = (row * heads + head) * vHeadDim + i;
        const wanted = (all[at] as number) * sigmoid(gates[head * block + nope + rope + i] as number);
        expect(found[at]).toBeCloseTo(wanted, 6);
      }
    }
  }
  expect(gatedValues(graph, { qB }, asked, values)).toBe(values);
});

/** Shares by expert of AXK2TopkRouter and GlmMoeDsaTopkRouter of transformers 5.24, float32, for the router below. */
const routed: [string, 0 | undefined, Record<number, number>[]][] = [
  [
    "0, which biases may go below, in A.X-K2",
    0,
    [
      { 2: 0.6607615947723389, 0: 0.7047512531280518, 5: 0.8773580193519592, 4: 0.2571292519569397 },
      { 4: 0.35298314690589905, 5: 0.8914157748222351, 2: 1.1560379266738892, 0: 0.09956315159797668 },
    ],
  ],
  [
    "minus infinity elsewhere",
    undefined,
    [
      { 2: 0.4426148533821106, 0: 0.47208160161972046, 1: 0.7127629518508911, 3: 0.8725407123565674 },
      { 0: 0.10339432209730148, 2: 1.2005220651626587, 1: 0.5145860910415649, 3: 0.6814975142478943 },
    ],
  ],
];

test.each(routed)("experts of closed groups score %s", async (_, closedScore, wanted) => {
  const { config } = await openModel(fixturePath("axk2-groups"));
  const [experts, k] = [6, 4];
  const sizes = { nRoutedExperts: experts, numExpertsPerTok: k, nGroup: 3, topkGroup: 2 };
  const graph = new ModelGraph({ ...config, ...sizes, normTopkProb: true, routedScalingFactor: 2.5 });
  const h = graph.input("h", OnnxType.float, [2, 2]);
  const router = named("router", [experts, 2]);
  const correctionBias = named("bias", [experts]);
  for (const weight of [router, correctionBias]) graph.parameter(weight);
  const { chosen, shares } = route(
    graph,
    { router, correctionBias, experts: [], shared: undefined, ...(closedScore === undefined ? {} : { closedScore }) },
    h,
  );
  graph.output(
    "result",
    graph.node("Concat", [graph.cast(chosen, OnnxType.float), shares], { axis: 1 }),
    OnnxType.float,
    [2, 2 * k],
  );
  const found = await run(graph, {
    h: { data: Float32Array.of(1, 0.5, -1, 2), shape: [2, 2] },
    router: { data: Float32Array.of(0.5, -1, 1, 0.25, -0.5, 0.75, 2, 1, -1, -1, 0.25, 0.5), shape: [experts, 2] },
    bias: { data: Float32Array.of(-0.1, -0.9, -0.3, -1.25, -2, -1.5), shape: [experts] },
  });
  for (const [row, expected] of wanted.entries()) {
    const own = found.subarray(row * 2 * k, (row + 1) * 2 * k);
    expect([...own.subarray(0, k)].sort()).toEqual(Object.keys(expected).map(Number));
    for (let i = 0; i < k; i++) expect(own[k + i]).toBeCloseTo(expected[own[i] as number] as number, 6);
  }
});
