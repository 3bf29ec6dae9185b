/** What the tool itself has written and reads again: pattern files, journals, samples, results. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { readEvalResult } from "../../../src/formats/eval-result.ts";
import { type JournalEntry, openJournal, readJournal } from "../../../src/formats/journal.ts";
import { parseAnyPatternFile } from "../../../src/formats/published-pattern.ts";
import { openSampleJournal, readSamples } from "../../../src/formats/sample-journal.ts";
import { indexcache, tinyModel, writeIds } from "../../cli/indexcache.ts";
import { sample } from "../../eval/run/samples.ts";
import { fuzzClass } from "../fuzz-class.ts";
import { type ByteMutation, byteMutation, jsonMutation, mutateBytes, mutateJson } from "../mutations.ts";

const anyMutation = fc.oneof(
  { weight: 2, arbitrary: fc.record({ json: jsonMutation }) },
  { weight: 1, arbitrary: fc.record({ bytes: byteMutation }) },
);

const patternFile = fuzzClass({
  name: "pattern file",
  mutation: anyMutation,
  runs: 60,
  async prepare(folder) {
    await writeIds(join(folder, "ids.jsonl"), 2, 48);
    const set = [tinyModel, "-c", "ids.jsonl", "--sequence-length", "48", "--workers", "1", "--threads", "1"];
    const made = await indexcache(folder, ["search", ...set, "--retain", "2", "-o", "p.json", "--fresh"]);
    if (made.status !== 0) throw new Error(made.stderr);
    const bytes = await readFile(join(folder, "p.json"));
    const text = bytes.toString();
    const { index_topk_pattern: letters, loss, baseline_loss: baseline } = JSON.parse(text);
    return async (mutation) => {
      const changed =
        "json" in mutation ? mutateJson(text, mutation.json).text : mutateBytes(bytes, mutation.bytes).toString();
      const file = parseAnyPatternFile(changed, "p.json");
      if (file.index_topk_pattern !== letters) return `its letters are ${file.index_topk_pattern}, were ${letters}`;
      if (!("loss" in file)) return "read as a published pattern";
      if (file.loss !== loss) return `its loss is ${file.loss}, was ${loss}`;
      if (file.baseline_loss !== baseline) return `its baseline_loss is ${file.baseline_loss}, was ${baseline}`;
      return undefined;
    };
  },
});

const fingerprint = {
  model_name: "m",
  model_config_hash: "a",
  weight_hash: "b",
  calibration_hash: "c",
  settings: { dtype: "float32" },
  search: { strategy: "greedy", objective: "nll" },
  tool_version: "0.1.0",
};

function entry(pattern: string, loss: number): JournalEntry {
  return {
    pattern,
    sequences: [{ index: 0, loss, tokens: 7 }],
    seconds: 0.5,
    executions: { body: 4, indexer: 3, naive_body: 8, naive_indexer: 7 },
  };
}

/** Entries of the changed log must all be those of the original: lines may be gone, none may be another. */
function logClass(
  name: string,
  write: (path: string) => Promise<void>,
  read: (path: string) => Promise<{ fingerprint: unknown; entries: readonly unknown[] } | undefined>,
) {
  return fuzzClass<
    { bytes: ByteMutation } | { line: number; json: typeof jsonMutation extends fc.Arbitrary<infer T> ? T : never }
  >({
    name,
    mutation: fc.oneof(fc.record({ bytes: byteMutation }), fc.record({ line: fc.nat({ max: 3 }), json: jsonMutation })),
    runs: 40,
    async prepare(folder) {
      const path = join(folder, "log.jsonl");
      await write(path);
      const bytes = await readFile(path);
      const original = await read(path);
      const known = new Set(original?.entries.map((one) => JSON.stringify(one)));
      return async (mutation) => {
        let changed: Buffer | string;
        if ("bytes" in mutation) changed = mutateBytes(bytes, mutation.bytes);
        else {
          const lines = bytes.toString().split("\n");
          lines[mutation.line] = mutateJson(lines[mutation.line] as string, mutation.json).text;
          changed = lines.join("\n");
        }
        await writeFile(path, changed);
        const content = await read(path);
        if (content === undefined) return undefined;
        if (JSON.stringify(content.fingerprint) !== JSON.stringify(original?.fingerprint)) return "another fingerprint";
        const foreign = content.entries.find((one) => !known.has(JSON.stringify(one)));
        return foreign === undefined
          ? undefined
          : `an entry that nobody wrote: ${JSON.stringify(foreign).slice(0, 300)}`;
      };
    },
  });
}

const journal = logClass(
  "search journal",
  async (path) => {
    const log = await openJournal(path, fingerprint, "create");
    for (const one of [entry("FFFF", 0.1 + 0.2), entry("FSFF", 2.5), entry("FFSF", 1 / 3)]) await log.append(one);
    await log.close();
  },
  readJournal,
);

const samples = logClass(
  "samples file",
  async (path) => {
    const { search: _search, ...rest } = fingerprint;
    const marks = {
      tokenizer_hash: "c",
      chat_template: "none",
      chat_template_hash: null,
      suite: "ruler-core",
      suite_version: 1,
    };
    const { calibration_hash: _hash, ...model } = rest;
    const log = await openSampleJournal(path, { ...model, ...marks }, "create");
    for (const id of ["a", "b", "c"]) await log.append(sample({ id, choice_log_probabilities: [-0.1, -3] }));
    await log.close();
  },
  readSamples,
);

const evalResult = fuzzClass({
  name: "eval result",
  mutation: anyMutation,
  runs: 30,
  async prepare(folder) {
    const bytes = await readFile(
      join(import.meta.dirname, "..", "..", "fixtures", "eval", "result-of-0.1.0-resampled.json"),
    );
    const path = join(folder, "result.json");
    return async (mutation) => {
      await writeFile(
        path,
        "json" in mutation ? mutateJson(bytes.toString(), mutation.json).text : mutateBytes(bytes, mutation.bytes),
      );
      const text = JSON.stringify(await readEvalResult(path));
      return text.includes("polluted") ? "keeps a foreign prototype" : undefined;
    };
  },
});

export const resultClasses = [patternFile, journal, samples, evalResult];
