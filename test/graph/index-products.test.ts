/** Index scores of products in float16 beside those in float32, of the same float16 queries and keys. */
import { expect, test } from "vitest";
import { OnnxType } from "../../src/checkpoint/dtype.ts";
import type { IndexerWeights } from "../../src/checkpoint/weights.ts";
import { encodeModel } from "../../src/graph/graph-builder.ts";
import { kernelsOf } from "../../src/graph/layer/kernels.ts";
import { indexHeadWeights, indexScores } from "../../src/graph/layer/lightning-indexer.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { ModelGraph } from "../../src/graph/model-graph.ts";
import { floats, loadRuntime, OnnxSession } from "../../src/runtime/session/onnx-session.ts";
import { fixturePath } from "../oracle.ts";

test.each([1, 2])("float16 index products of %i sequence(s) differ by rounding alone", async (batch) => {
  const model = await openModel(fixturePath("glm-groups"));
  const { config } = model;
  const { indexNHeads: heads, indexHeadDim: dim, hiddenSize } = config;
  const [rows, keys] = [8, 96];
  const indexer = (await model.weights()).layers.find((layer) => layer.indexer !== undefined)
    ?.indexer as IndexerWeights;
  const { Tensor } = await loadRuntime();
  const shapes = { queries: [batch, rows * heads, dim], keys: [batch, keys, dim], h: [batch * rows, hiddenSize] };
  const scores = async (indexProducts: "float16" | "float32") => {
    const kernels = { ...kernelsOf("cuda", OnnxType.float16), indexProducts };
    const graph = new ModelGraph(config, { precision: OnnxType.float16, weights: "outer" });
    const half = (name: keyof typeof shapes) =>
      graph.cast(graph.input(name, OnnxType.float, shapes[name]), OnnxType.float16);
    const [asked, all, h] = [half("queries"), half("keys"), half("h")];
    const readable = indexProducts === "float16" ? all : graph.toFloat(all);
    const weights = indexHeadWeights(graph, kernels, indexer, h);
    const scored = { rows: readable, count: () => graph.dimension(readable, 1) };
    graph.output("scores", indexScores(graph, kernels, asked, weights, scored), OnnxType.float, [batch * rows, keys]);
    const session = await OnnxSession.create(encodeModel(graph.model("scores")), "scores", {
      device: "cpu",
      threads: 1,
      folder: model.path,
    });
    const feeds = Object.fromEntries(
      Object.entries(shapes).map(([name, shape], place) => {
        const size = shape.reduce((product, n) => product * n);
        return [
          name,
          new Tensor(
            "float32",
            Float32Array.from({ length: size }, (_, i) => 4 * Math.sin(i * (1.3 + place))),
            shape,
          ),
        ];
      }),
    );
    try {
      return Float32Array.from(floats((await session.run(feeds)).scores, "scores"));
    } finally {
      await session.release();
    }
  };
  const [exact, rounded] = [await scores("float32"), await scores("float16")];
  const size = Math.sqrt(exact.reduce((sum, x) => sum + x * x, 0) / exact.length);
  expect(size).toBeGreaterThan(0.01);
  const apart = Math.max(...rounded.map((x, i) => Math.abs(x - (exact[i] as number))));
  expect(apart / size).toBeLessThan(5e-3);
});
