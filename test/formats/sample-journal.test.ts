import { appendFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ResumeMismatchError } from "../../src/base/errors.ts";
import { openSampleJournal, readSamples, type SampleFingerprint } from "../../src/formats/sample-journal.ts";
import { sample } from "../eval/run/samples.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const folder = temporaryFolder("test");
const path = join(folder, "r.json.samples.jsonl");

const fingerprint: SampleFingerprint = {
  model_name: "glm-tiny",
  model_config_hash: "a",
  weight_hash: "b",
  tokenizer_hash: "c",
  chat_template: "none",
  chat_template_hash: null,
  suite: "ruler-core",
  suite_version: 1,
  settings: { seed: 42, device: "cpu" },
  tool_version: "0.1.0",
};

test("samples come back as they were, without a torn last line", async () => {
  const samples = [sample({ id: "a", choice_log_probabilities: [-0.1 - 0.2, -3] }), sample({ id: "b", thought: "hm" })];
  const journal = await openSampleJournal(path, fingerprint, "create");
  for (const one of samples) await journal.append(one);
  await journal.close();
  await appendFile(path, '{"task":"need');
  expect((await readSamples(path))?.entries).toEqual(samples);
  const resumed = await openSampleJournal(path, { ...fingerprint, model_name: "renamed" }, "resume");
  await resumed.append(sample({ id: "c" }));
  await resumed.close();
  expect((await readSamples(path))?.entries.map(({ id }) => id)).toEqual(["a", "b", "c"]);
});

test("another model, template or setting is refused by name", async () => {
  await (await openSampleJournal(path, fingerprint, "create")).close();
  const other = { ...fingerprint, weight_hash: "x", chat_template_hash: "y", settings: { seed: 7, device: "cpu" } };
  const error = await openSampleJournal(path, other, "resume").catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(ResumeMismatchError);
  expect(String(error)).toContain(
    "weight_hash (journal: b, now: x); chat_template_hash (journal: null, now: y); settings.seed (journal: 42, now: 7)",
  );
});

test("a bad line is named", async () => {
  await (await openSampleJournal(path, fingerprint, "create")).close();
  await appendFile(path, `${JSON.stringify({ ...sample(), score: 3 })}\n`);
  await expect(readSamples(path)).rejects.toThrow(/line 2: "score"/);
});
