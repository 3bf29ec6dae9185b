/** `model.onnx` on its own, as any ONNX Runtime host would use it: one graph, every pattern. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Tensor } from "onnxruntime-node";
import { beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  bypassInput,
  fullModelSpec,
  newLatent,
  pastIndexerKey,
  pastLatent,
} from "../../src/graph/exported/contract.ts";
import { exportModel } from "../../src/graph/exported/export.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import type { Pattern } from "../../src/pattern/pattern.ts";
import { openDecoder } from "../../src/runtime/generate/decoder.ts";
import { type Feeds, floats, loadRuntime, OnnxSession } from "../../src/runtime/session/onnx-session.ts";
import { fixturePath, largestDifference, oracleLogits, readOracle } from "../oracle.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const oracle = readOracle("glm-groups");
const scratch = temporaryFolder("file");
const folder = join(scratch, "model");

beforeAll(async () => {
  await exportModel(fixturePath("glm-groups"), folder);
});

async function openFull(profilePrefix?: string) {
  const { config } = await openModel(folder);
  const graph = await readFile(join(folder, "model.onnx"));
  const profile = profilePrefix === undefined ? {} : { profilePrefix };
  const session = await OnnxSession.create(graph, "model.onnx", { device: "cpu", threads: 1, folder, ...profile });
  return { config, session };
}

async function feed(
  config: Parameters<typeof fullModelSpec>[0],
  ids: readonly number[],
  pattern: Pattern,
  keep: number,
) {
  const runtime = await loadRuntime();
  const int64 = (values: readonly number[]): Tensor =>
    new runtime.Tensor("int64", BigInt64Array.from(values, BigInt), [values.length]);
  const feeds: Feeds = {
    input_ids: int64(ids),
    position_ids: int64(ids.map((_, i) => i)),
    logits_to_keep: int64([keep]),
  };
  for (const { name, shape } of fullModelSpec(config).inputs) {
    if (name.startsWith("past_"))
      feeds[name] = new runtime.Tensor("float32", new Float32Array(), [0, Number(shape[1])]);
    if (name.startsWith("indexer_bypass.")) {
      const shared = pattern[Number(name.split(".")[1])] === "S";
      feeds[name] = new runtime.Tensor("bool", Uint8Array.of(shared ? 1 : 0), []);
    }
  }
  return feeds;
}

describe("model.onnx", () => {
  test("gives transformers' logits for every pattern through its bypass inputs", async () => {
    const { config, session } = await openFull();
    for (const run of oracle.runs) {
      const ids = oracle.sequences[run.sequence] ?? [];
      const outputs = await session.run(await feed(config, ids, run.pattern, ids.length));
      const wanted = oracleLogits("glm-groups", run);
      expect(largestDifference(floats(outputs.logits, "logits"), wanted)).toBeLessThan(1e-4);
      expect(outputs[newLatent(0)]?.dims).toEqual([ids.length, 38]);
    }
    await session.release();
  });

  test("keeps as many rows of logits as it is asked for", async () => {
    const { config, session } = await openFull();
    const ids = oracle.sequences[0] ?? [];
    const outputs = await session.run(await feed(config, ids, oracle.native_pattern, 1));
    expect(outputs.logits?.dims).toEqual([1, oracle.vocabulary_size]);
    await session.release();
  });

  test("a bypassed layer does not execute its indexer", async () => {
    const { config, session } = await openFull(join(scratch, "bypass"));
    await session.run(await feed(config, oracle.sequences[0] ?? [], "FSFSF" as Pattern, 1));
    await session.release();
    const [file] = (await readdir(scratch)).filter((name) => name.startsWith("bypass"));
    expect(await indexerTopKs(join(scratch, file ?? ""))).toBe(3);
  });

  test("has the names of the contract", () => {
    expect([bypassInput(3), pastLatent(3), pastIndexerKey(3)]).toEqual([
      "indexer_bypass.3",
      "past_latent.3",
      "past_indexer_key.3",
    ]);
  });
});

test("a decoder with a fixed pattern has no indexer in its Shared layers", async () => {
  const model = await openModel(folder);
  const profilePrefix = join(scratch, "decoder");
  const decoder = await openDecoder(model, "FSSSF" as Pattern, { device: "cpu", threads: 1, profilePrefix });
  await decoder.prefill(oracle.sequences[0]?.slice(0, 30) ?? []);
  await decoder.decode(1);
  expect(decoder.indexerExecutions).toEqual({ made: 4, saved: 6 });
  await decoder.release();
  const [file] = (await readdir(scratch)).filter((name) => name.startsWith("decoder"));
  // Rows 7 to 29 and the decoded token are scored, each in two layers.
  expect(await indexerTopKs(join(scratch, file ?? ""))).toBe(4);
});

/**
 * TopK nodes over index scores in a profile: the router's pick 2 experts or groups, the indexer's 7 keys; those that look for
 * a bound pick 7 of 14 groups.
 */
async function indexerTopKs(profile: string): Promise<number> {
  const events = z
    .array(z.looseObject({ name: z.string(), args: z.record(z.string(), z.unknown()).optional() }))
    .parse(JSON.parse(await readFile(profile, "utf8")));
  return events.filter(
    ({ name, args }) =>
      args?.op_name === "TopK" &&
      name.endsWith("_kernel_time") &&
      JSON.stringify(args.output_type_shape).includes(",7]") &&
      !JSON.stringify(args.input_type_shape).includes(",14]"),
  ).length;
}
