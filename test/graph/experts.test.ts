/** Every form of a mixture of experts computes the same, from weights in every dtype. */
import { copyFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { OnnxType } from "../../src/checkpoint/dtype.ts";
import { isRouted, type LayerWeights, type RoutedWeights } from "../../src/checkpoint/weights.ts";
import { encodeModel } from "../../src/graph/graph-builder.ts";
import { type ExpertForm, feedForward } from "../../src/graph/layer/experts.ts";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { ModelGraph } from "../../src/graph/model-graph.ts";
import type { ModelProto } from "../../src/graph/onnx_pb.ts";
import { floats, loadRuntime, OnnxSession } from "../../src/runtime/session/onnx-session.ts";
import { fixturePath } from "../oracle.ts";

test.each([
  ...["axk2-light", "glm-groups", "v32-fp8"].map((fixture) => [fixture, 5, ["fused", "products", "dense"]] as const),
  ...["axk2-light", "glm-groups", "v32-fp8"].map((fixture) => [fixture, 1, ["products", "chosen"]] as const),
])("%s, %i row(s): branch and %j agree", async (fixture, rows, forms) => {
  const model = await openModel(fixturePath(fixture));
  const layer = await routedLayer(model);
  const expected = await mixed(model, layer, model.path, rows, "branch");
  for (const form of forms) {
    expect(difference(await mixed(model, layer, model.path, rows, form), expected), form).toBeLessThan(1e-5);
  }
});

test("an expert that all rows choose has room for them", async () => {
  const model = await openModel(fixturePath("glm-groups"));
  const layer = await routedLayer(model);
  // More rows than a step of room holds, and nearly the same, so that they choose the same experts.
  const expected = await mixed(model, layer, model.path, 40, "branch", 1e-3);
  expect(difference(await mixed(model, layer, model.path, 40, "products", 1e-3), expected)).toBeLessThan(1e-5);
});

test("experts that lie in two files are read from both, and none is put together with another's", async () => {
  const model = await openModel(fixturePath("axk2-light"));
  const layer = await routedLayer(model);
  const folder = await mkdtemp(join(tmpdir(), "experts-"));
  try {
    const { location } = (layer.mlp as RoutedWeights).experts[0]?.gate ?? { location: "" };
    for (const name of [location, "second.safetensors"]) {
      await copyFile(join(model.path, location), join(folder, name));
    }
    const there = { location: "second.safetensors" };
    const mlp = layer.mlp as RoutedWeights;
    const border = Math.floor(mlp.experts.length / 2);
    const experts = mlp.experts.map(({ gate, up, down }, index) => ({
      gate: index > border ? { ...gate, ...there } : gate,
      up: index > border ? { ...up, ...there } : up,
      // The border runs through an expert.
      down: index >= border ? { ...down, ...there } : down,
    }));
    const inTwo = { ...layer, mlp: { ...mlp, experts } };
    for (const [rows, form] of [
      [5, "products"],
      [1, "products"],
      [1, "chosen"],
    ] as const) {
      const expected = await mixed(model, layer, model.path, rows, form);
      expect(await mixed(model, inTwo, folder, rows, form), form).toEqual(expected);
      // The outermost graph joins what a run needs from its beginning to its end.
      const { node = [] } = mixture(model, inTwo, rows, form).graph ?? {};
      const joins = node.filter(({ opType }) => opType === "Concat").flatMap(({ input }) => input);
      expect(joins.every((name) => name.includes(`experts.${border}.`))).toBe(true);
    }
  } finally {
    await rm(folder, { recursive: true });
  }
});

async function routedLayer(model: ModelFolder): Promise<LayerWeights> {
  const layer = (await model.weights()).layers.findLast(({ mlp }) => isRouted(mlp));
  if (layer === undefined) throw new Error(`${model.path} has no experts`);
  return layer;
}

function difference(one: Float32Array, other: Float32Array): number {
  return Math.max(...one.map((x, i) => Math.abs(x - (other[i] as number))));
}

/** A layer's MLP. */
function mixture({ config }: ModelFolder, layer: LayerWeights, rows: number, form: ExpertForm): ModelProto {
  const graph = new ModelGraph(config, { precision: OnnxType.float, weights: "outer" });
  const h = graph.input("h", OnnxType.float, [rows, config.hiddenSize]);
  const always = graph.input("always", OnnxType.bool, []);
  // As in a sequence graph: a layer is a branch, and its weights are the outer graph's.
  const result = graph.either(
    always,
    (inside) => feedForward(inside, layer, h, form),
    () => h,
  );
  graph.output("result", result, OnnxType.float, [rows, config.hiddenSize]);
  return graph.model("experts");
}

/**
 * What it makes of some rows.
 * @param folder of the weight files
 * @param apart how far rows are from each other, of 1
 */
async function mixed(
  model: ModelFolder,
  layer: LayerWeights,
  folder: string,
  rows: number,
  form: ExpertForm,
  apart = 1,
): Promise<Float32Array> {
  const { Tensor } = await loadRuntime();
  const { hiddenSize } = model.config;
  const data = Float32Array.from({ length: rows * hiddenSize }, (_, i) => {
    const row = Math.floor(i / hiddenSize);
    return Math.sin(((i % hiddenSize) + row * hiddenSize * apart) * 1.7);
  });
  const session = await OnnxSession.create(encodeModel(mixture(model, layer, rows, form)), "experts", {
    device: "cpu",
    threads: 1,
    folder,
  });
  const feeds = { h: new Tensor("float32", data, [rows, hiddenSize]), always: new Tensor("bool", [true], []) };
  try {
    return Float32Array.from(floats((await session.run(feeds)).result, "result"));
  } finally {
    await session.release();
  }
}
