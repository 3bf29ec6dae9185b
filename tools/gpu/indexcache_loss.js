/**
 * LM loss in indexcache: seconds, device memory and losses, one JSON line for each entry. The counterpart of
 * transformers_loss.py, with the same plan file.
 *
 *   node tools/gpu/indexcache_loss.js models/demo --plan plan.json
 *
 * Each dtype gets a process of its own: whether float32 products may be rounded to TF32 is decided once a process.
 * Entries have `ids`, `dtype`, `device` (cuda), and optionally `pattern`, `repeats` (3), `chunk_bytes` and `name`.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { openModel } from "../../dist/graph/model-folder.js";
import { BatchedLosses } from "../../dist/runtime/loss/sequence-loss.js";
import { readArguments } from "../arguments.js";
import { countFull, requireExecutions } from "../executions.js";

const { values, positionals } = readArguments(
  { plan: { type: "string", required: true }, dtype: { type: "string" } },
  { named: ["MODEL"] },
);
const plan = JSON.parse(readFileSync(values.plan, "utf8"));
const dtypes = [...new Set(plan.map(({ dtype }) => dtype))];
if (values.dtype === undefined && dtypes.length > 1) {
  for (const dtype of dtypes) {
    const { status } = spawnSync(process.execPath, [...process.argv.slice(1), "--dtype", dtype], { stdio: "inherit" });
    if (status !== 0) process.exit(status ?? 1);
  }
  process.exit();
}
const model = await openModel(positionals[0]);

let open = { key: "", losses: undefined };
for (const entry of plan.filter(({ dtype }) => values.dtype === undefined || dtype === values.dtype)) {
  const windows = JSON.parse(readFileSync(entry.ids, "utf8")).map((ids) => Int32Array.from(ids));
  const tokens = windows.reduce((sum, window) => sum + window.length, 0);
  const line = { engine: "indexcache", ...entry, sequences: windows.length, length: windows[0].length };
  try {
    const key = JSON.stringify([entry.ids, entry.dtype, entry.device, entry.chunk_bytes, entry.profile]);
    if (key !== open.key) {
      await open.losses?.release();
      open = { key: "", losses: undefined };
      const started = performance.now();
      const losses = await BatchedLosses.open(model, windows, {
        device: entry.device ?? "cuda",
        threads: 8,
        dtype: entry.dtype,
        stateBytes: 0,
        chunkBytes: entry.chunk_bytes ?? 8 * 2 ** 30,
        ...(entry.profile === undefined ? {} : { profilePrefix: entry.profile }),
      });
      open = { key, losses };
      line.load_seconds = (performance.now() - started) / 1000;
      line.plan = losses.plan;
    }
    const pattern = entry.pattern ?? model.config.indexerLayers;
    const seconds = [];
    // Layer bodies of every pass; one that was answered from memory would be a benchmark of nothing.
    const expected = windows.length * model.config.numHiddenLayers;
    let result;
    for (let repeat = 0; repeat <= (entry.repeats ?? 3); repeat++) {
      const started = performance.now();
      result = await open.losses.evaluate(pattern, { afresh: true });
      if (repeat > 0 || entry.repeats === 0) seconds.push((performance.now() - started) / 1000);
      const { body, indexer } = result.executions;
      requireExecutions(
        `pass ${repeat} of ${entry.ids}`,
        { body, indexer },
        { body: expected, indexer: windows.length * countFull(pattern) },
      );
    }
    const median = [...seconds].sort((a, b) => a - b)[Math.floor(seconds.length / 2)];
    Object.assign(line, {
      seconds,
      seconds_median: median,
      tokens_per_second: tokens / median,
      device_bytes: deviceBytes(),
      losses: result.sequences.map(({ loss }) => loss),
    });
  } catch (error) {
    // Out of memory is a result; work that was not done is not.
    if (/did not do the work/.test(error.message)) throw error;
    line.skipped = error.message;
    open = { key: "", losses: undefined };
  }
  console.log(JSON.stringify(line));
}
await open.losses?.release();

/** Device memory in use: the runtime's arena keeps its peak. */
function deviceBytes() {
  try {
    const text = execFileSync("nvidia-smi", ["--query-gpu=memory.used", "--format=csv,noheader,nounits"], {
      encoding: "utf8",
    });
    return Number(text.split("\n")[0]) * 2 ** 20;
  } catch {
    return undefined;
  }
}
