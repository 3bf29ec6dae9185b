import { mkdir, readdir, readFile, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { beforeEach, describe, expect, test } from "vitest";
import { InterruptedError } from "../../src/base/errors.ts";
import { hashBytes } from "../../src/base/files.ts";
import { exportModel } from "../../src/graph/exported/export.ts";
import { inspectModel } from "../../src/graph/exported/inspect.ts";
import { openModel, verifyWeights } from "../../src/graph/model-folder.ts";
import { type GraphProto, type ModelProto, ModelProtoSchema } from "../../src/graph/onnx_pb.ts";
import { openLossEvaluator } from "../../src/runtime/loss/loss-evaluator.ts";
import { copyFixture, pokeTensor } from "../checkpoint/safetensors-file.ts";
import { fixturePath, readOracle } from "../oracle.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const scratch = temporaryFolder("test");
const target = join(scratch, "model");

describe("exportModel", () => {
  test.each(["glm-shared", "v32-fp8"])("%s: the folder runs like the checkpoint, bit for bit", async (name) => {
    const report = await exportModel(fixturePath(name), target);
    expect(report.indexerLayers).toBe(readOracle(name).indexers_present);
    const losses = await Promise.all(
      [fixturePath(name), target].map(async (path) => {
        const windows = readOracle(name).sequences.map((ids) => Int32Array.from(ids));
        const evaluator = await openLossEvaluator(await openModel(path), windows, {
          device: "cpu",
          threads: 1,
          workers: 1,
        });
        const { loss } = await evaluator.evaluate(readOracle(name).indexers_present);
        await evaluator.release();
        return loss;
      }),
    );
    expect(losses[0]).toBe(losses[1]);
    const [checkpoint, exported] = await Promise.all([openModel(fixturePath(name)), openModel(target)]);
    expect((await exported.identity()).weightHash).toBe((await checkpoint.identity()).weightHash);
    expect((await exported.identity()).configHash).toBe((await checkpoint.identity()).configHash);
  });

  test("the same checkpoint gives the same bytes", async () => {
    const second = join(scratch, "second");
    await exportModel(fixturePath("glm-groups"), target);
    await exportModel(fixturePath("glm-groups"), second);
    expect(await readFile(join(second, "indexcache.json"))).toEqual(await readFile(join(target, "indexcache.json")));
  });

  test("graphs are small and share the weight files", async () => {
    await exportModel(fixturePath("glm-groups"), target);
    const weights = (await stat(join(target, "model.safetensors"))).size;
    for (const stage of await readdir(join(target, "stages"))) {
      expect((await stat(join(target, "stages", stage))).size).toBeLessThan(weights / 10);
    }
  });

  test("into the checkpoint's own folder it adds graphs and copies nothing", async () => {
    const folder = await copyFixture("glm-groups");
    const before = await stat(join(folder, "model.safetensors"));
    expect((await exportModel(folder, folder)).inPlace).toBe(true);
    expect((await stat(join(folder, "model.safetensors"))).ino).toBe(before.ino);
    expect((await inspectModel(folder, { verify: true })).kind).toBe("exported model");
    await expect(exportModel(folder, target)).rejects.toThrow(/is an exported model already/);
    await rm(folder, { recursive: true });
  });

  test("never writes into a folder that holds something", async () => {
    await mkdir(target);
    await writeFile(join(target, "mine.txt"), "mine");
    await expect(exportModel(fixturePath("glm-groups"), target)).rejects.toThrow(/the folder is not empty/);
    expect(await readdir(target)).toEqual(["mine.txt"]);
  });

  test.each([
    [
      "glm-groups",
      "model.safetensors",
      "model.layers.2.mlp.experts.3.up_proj.weight",
      new Uint8Array(Float32Array.of(Number.NaN).buffer),
    ],
    ["glm-shared", "model-00001-of-00003.safetensors", "model.embed_tokens.weight", Uint8Array.of(0x80, 0x7f)],
  ])("%s: a weight that is not finite is found, and nothing is left behind", async (name, file, tensor, bytes) => {
    const folder = await copyFixture(name);
    await pokeTensor(join(folder, file), tensor, 7, bytes);
    await expect(exportModel(folder, target)).rejects.toThrow(`tensor "${tensor}": element [0, 7] is not finite`);
    expect(await readdir(scratch)).toEqual([]);
    await rm(folder, { recursive: true });
  });

  test("an interruption leaves nothing behind", async () => {
    const stop = AbortSignal.abort();
    await expect(exportModel(fixturePath("glm-groups"), target, { signal: stop })).rejects.toBeInstanceOf(
      InterruptedError,
    );
    expect(await readdir(scratch)).toEqual([]);
  });

  test("a folder that cannot be written is named", async () => {
    await writeFile(join(scratch, "file"), "");
    await expect(exportModel(fixturePath("glm-groups"), join(scratch, "file", "model"))).rejects.toThrow(
      /Cannot (write|export to) ".*file\/model": a part of the path is not a folder/,
    );
  });
});

describe("the contract", () => {
  const stage = "stages/layer.2.body.onnx";
  beforeEach(() => exportModel(fixturePath("glm-groups"), target));

  /** Changes a graph, and the manifest with it: the graph is then valid but for what the change breaks. */
  async function change(file: string, edit: (model: ModelProto, graph: GraphProto) => void): Promise<void> {
    const model = fromBinary(ModelProtoSchema, await readFile(join(target, file)));
    if (model.graph === undefined) throw new Error("no graph");
    edit(model, model.graph);
    const bytes = toBinary(ModelProtoSchema, model);
    await writeFile(join(target, file), bytes);
    await changeManifest((manifest) => {
      manifest.files[file] = { bytes: bytes.length, sha256: hashBytes(bytes) };
    });
  }

  type LooseManifest = { [field: string]: unknown; files: Record<string, { bytes: number; sha256: string }> };
  async function changeManifest(edit: (manifest: LooseManifest) => void): Promise<void> {
    const path = join(target, "indexcache.json");
    const manifest = JSON.parse(await readFile(path, "utf8")) as LooseManifest;
    edit(manifest);
    await writeFile(path, JSON.stringify(manifest));
  }

  test("C1: another version of the contract", async () => {
    await changeManifest((manifest) => {
      manifest.contract_version = 2;
    });
    await expect(inspectModel(target)).rejects.toThrow(/contract_version 2; this tool reads version 1/);
  });

  test("C2: a file that is missing, shorter or changed", async () => {
    await truncate(join(target, "model.onnx"), 100);
    await expect(inspectModel(target)).rejects.toThrow(/model.onnx" has 100 bytes.*rule C2/);
    await rm(join(target, "model.onnx"));
    await expect(inspectModel(target)).rejects.toThrow(/model.onnx" is missing \(rule C2/);
  });

  test.each(["config.json", "model.onnx", stage])("C2: %s, which the manifest does not list", async (file) => {
    await changeManifest((manifest) => {
      delete (manifest.files as Record<string, unknown>)[file];
    });
    await expect(openModel(target)).rejects.toThrow(`files does not list "${file}" (rule C2`);
  });

  test("a manifest without weight files is malformed", async () => {
    await changeManifest((manifest) => {
      manifest.weight_files = [];
    });
    await expect(openModel(target)).rejects.toThrow(/indexcache.json".*weight_files/);
  });

  async function flipLastBit(file: string): Promise<void> {
    const path = join(target, file);
    const bytes = await readFile(path);
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    await writeFile(path, bytes);
  }

  test.each(["config.json", stage, "model.onnx"])("a changed byte of %s is always found", async (file) => {
    await flipLastBit(file);
    await expect(openModel(target)).rejects.toThrow(/was changed: its SHA-256 is not the one in indexcache.json/);
  });

  test("a changed byte of the weights is found by verifyWeights, and by --verify", async () => {
    await verifyWeights(await openModel(target));
    await flipLastBit("model.safetensors");
    await expect(verifyWeights(await openModel(target))).rejects.toThrow(/model.safetensors" was changed/);
    await expect(inspectModel(target)).resolves.toBeDefined();
    await expect(inspectModel(target, { verify: true })).rejects.toThrow(/model.safetensors" was changed/);
  });

  test("another graph with its own hash in the manifest is found by --verify", async () => {
    await change(stage, (_, graph) => {
      const scale = graph.node.find(({ opType }) => opType === "Add");
      if (scale !== undefined) scale.opType = "Sub";
    });
    await expect(inspectModel(target)).resolves.toBeDefined();
    await expect(inspectModel(target, { verify: true })).rejects.toThrow(/is not the graph that this version/);
  });

  test("C9: a graph that may never end", async () => {
    await change(stage, (_, graph) => {
      const [node] = graph.node;
      if (node !== undefined) node.opType = "Loop";
    });
    await expect(inspectModel(target)).rejects.toThrow(/layer.2.body.onnx, node ".*" is a Loop \(rule C9/);
  });

  test("C8: a node of another operator set than those that are declared", async () => {
    await change(stage, (_, graph) => {
      const [node] = graph.node;
      if (node !== undefined) node.domain = "my.ops";
    });
    await expect(openModel(target).then((model) => model.stage("layer.2.body"))).rejects.toThrow(
      /is of operator set "my.ops" \(rule C8/,
    );
  });

  test("C3: a manifest that disagrees with config.json", async () => {
    await changeManifest((manifest) => {
      manifest.index_topk = 8;
    });
    await expect(inspectModel(target)).rejects.toThrow(/index_topk is 8, config.json says 7 \(rule C3/);
  });

  test("C4: a stage that is not ONNX", async () => {
    await writeFile(join(target, stage), Buffer.from([0xff, 0xff, 0xff]));
    await changeManifest((manifest) => {
      manifest.files[stage] = { bytes: 3, sha256: hashBytes(Uint8Array.of(0xff, 0xff, 0xff)) };
    });
    await expect(inspectModel(target)).rejects.toThrow(/layer.2.body.onnx is not an ONNX model \(rule C4/);
  });

  test("C5: an input that is missing, of another type or of another width", async () => {
    await change(stage, (_, graph) => {
      const tensor = graph.input.find(({ name }) => name === "topk_indices")?.type?.tensorType;
      if (tensor !== undefined) tensor.elemType = 7;
    });
    await expect(inspectModel(target)).rejects.toThrow(
      /input "topk_indices" is int64 \[sequence_length, selected_keys\]; it must be int32 .*rule C5/,
    );
    await change(stage, (_, graph) => {
      graph.input = graph.input.filter(({ name }) => name !== "past_latent");
    });
    await expect(openModel(target).then((model) => model.stage("layer.2.body"))).rejects.toThrow(/rule C5/);
  });

  test("C6: an output that is missing", async () => {
    await change("model.onnx", (_, graph) => {
      graph.output = graph.output.filter(({ name }) => name !== "latent.1");
    });
    await expect(inspectModel(target)).rejects.toThrow(/model.onnx has no output "latent.1" \(rule C6/);
  });

  test("C7: weights outside the folder, or beyond the end of their file", async () => {
    const move = (key: string, value: string) =>
      change(stage, (_, graph) => {
        for (const entry of graph.initializer.find(({ externalData }) => externalData.length > 0)?.externalData ?? []) {
          if (entry.key === key) entry.value = value;
        }
      });
    await move("location", "../../etc/passwd");
    await expect(inspectModel(target)).rejects.toThrow(/lies in "..\/..\/etc\/passwd".*rule C7/);
    await move("location", "model.safetensors");
    await move("offset", "99999999");
    await expect(inspectModel(target)).rejects.toThrow(/reaches to byte \d+ of "model.safetensors".*rule C7/);
  });

  test("C8: an operator set that the tool does not know", async () => {
    await change(stage, (model) => {
      const [first] = model.opsetImport;
      if (first !== undefined) first.domain = "my.ops";
    });
    await expect(inspectModel(target)).rejects.toThrow(/imports operator set "my.ops".*rule C8/);
  });

  test("a model that somebody else exported loads: renamed tensors, one weight file of its own", async () => {
    await rename(join(target, "model.safetensors"), join(target, "weights.bin"));
    for (const file of [...(await readdir(join(target, "stages"))).map((name) => `stages/${name}`), "model.onnx"]) {
      await change(file, (model, graph) => {
        model.producerName = "another exporter";
        for (const tensor of external(graph)) {
          for (const entry of tensor.externalData) if (entry.key === "location") entry.value = "weights.bin";
        }
      });
    }
    await changeManifest((manifest) => {
      const weights = manifest.files["model.safetensors"];
      delete manifest.files["model.safetensors"];
      if (weights !== undefined) manifest.files["weights.bin"] = weights;
      manifest.weight_files = ["weights.bin"];
    });
    expect((await inspectModel(target)).parameters).toBe((await inspectModel(fixturePath("glm-groups"))).parameters);
    const windows = readOracle("glm-groups").sequences.map((ids) => Int32Array.from(ids));
    const evaluator = await openLossEvaluator(await openModel(target), windows, {
      device: "cpu",
      threads: 1,
      workers: 1,
    });
    const [wanted] = readOracle("glm-groups").losses;
    expect((await evaluator.evaluate(wanted?.pattern ?? readOracle("glm-groups").native_pattern)).loss).toBeCloseTo(
      wanted?.loss ?? 0,
      4,
    );
    await evaluator.release();
  });
});

function* external(graph: GraphProto): Generator<GraphProto["initializer"][number]> {
  yield* graph.initializer.filter(({ externalData }) => externalData.length > 0);
  for (const node of graph.node) for (const { g } of node.attribute) if (g !== undefined) yield* external(g);
}
