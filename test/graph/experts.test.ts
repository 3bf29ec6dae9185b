/** Every form of a mixture of experts computes the same, from weights in every dtype. */
import { expect, test } from "vitest";
import { OnnxType } from "../../src/checkpoint/dtype.ts";
import { isRouted } from "../../src/checkpoint/weights.ts";
import { encodeModel } from "../../src/graph/graph-builder.ts";
import { type ExpertForm, feedForward } from "../../src/graph/layer/experts.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { ModelGraph } from "../../src/graph/model-graph.ts";
import { floats, loadRuntime, OnnxSession } from "../../src/runtime/session/onnx-session.ts";
import { fixturePath } from "../oracle.ts";

test.each([
  ...["axk2-light", "glm-groups", "v32-fp8"].map((fixture) => [fixture, 5, ["fused", "stored", "dense"]] as const),
  ...["axk2-light", "glm-groups", "v32-fp8"].map((fixture) => [fixture, 1, ["stored", "chosen"]] as const),
])("%s, %i row(s): branch and %j agree", async (fixture, rows, forms) => {
  const model = await openModel(fixturePath(fixture));
  const { config } = model;
  const layer = (await model.weights()).layers.findLast(({ mlp }) => isRouted(mlp));
  if (layer === undefined) throw new Error(`${fixture} has no experts`);
  const { Tensor } = await loadRuntime();
  const data = Float32Array.from({ length: rows * config.hiddenSize }, (_, i) => Math.sin(i * 1.7));
  const run = async (form: ExpertForm) => {
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
    const session = await OnnxSession.create(encodeModel(graph.model("experts")), "experts", {
      device: "cpu",
      threads: 1,
      folder: model.path,
    });
    const feeds = { h: new Tensor("float32", data, [rows, config.hiddenSize]), always: new Tensor("bool", [true], []) };
    try {
      return Float32Array.from(floats((await session.run(feeds)).result, "result"));
    } finally {
      await session.release();
    }
  };
  const expected = await run("branch");
  for (const form of forms) {
    const found = await run(form);
    expect(Math.max(...found.map((x, i) => Math.abs(x - (expected[i] as number)))), form).toBeLessThan(1e-5);
  }
});
