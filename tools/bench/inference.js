/** Prefill and decode of fixed patterns: arms interleaved in one process, medians. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { openModel } from "../../dist/graph/model-folder.js";
import { openDecoder } from "../../dist/runtime/decoder.js";
import { StageModel } from "../../dist/runtime/stage-model.js";

/** Token ids that do not repeat for a while; what they say does not matter to the clock. */
export function someIds(count, vocabulary) {
  return Array.from({ length: count }, (_, i) => (i * 7919 + 13) % vocabulary);
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

async function timed(work) {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

/** Seconds of a prefill for each arm, `{ name: median }`. */
export async function measurePrefill(model, arms, length, { threads, repeats }) {
  const ids = someIds(length, model.config.vocabSize);
  const seconds = Object.fromEntries(Object.keys(arms).map((name) => [name, []]));
  for (let repeat = 0; repeat < repeats; repeat++) {
    for (const [name, pattern] of Object.entries(arms)) {
      const decoder = await openDecoder(model, pattern, { device: "cpu", threads, capacity: length });
      seconds[name].push(await timed(() => decoder.prefill(ids)));
      await decoder.release();
    }
  }
  return Object.fromEntries(Object.entries(seconds).map(([name, values]) => [name, median(values)]));
}

/** Seconds of one decoded token after `length` tokens for each arm. */
export async function measureDecode(model, arms, length, { threads, tokens, repeats }) {
  const ids = someIds(length, model.config.vocabSize);
  const decoders = {};
  for (const [name, pattern] of Object.entries(arms)) {
    decoders[name] = await openDecoder(model, pattern, { device: "cpu", threads, capacity: length + tokens * repeats });
    await decoders[name].prefill(ids);
  }
  const seconds = Object.fromEntries(Object.keys(arms).map((name) => [name, []]));
  for (let repeat = 0; repeat < repeats; repeat++) {
    for (const [name, decoder] of Object.entries(decoders)) {
      const steps = async () => {
        for (let i = 0; i < tokens; i++) await decoder.decode(ids[i]);
      };
      seconds[name].push((await timed(steps)) / tokens);
    }
  }
  for (const decoder of Object.values(decoders)) await decoder.release();
  return Object.fromEntries(Object.entries(seconds).map(([name, values]) => [name, median(values)]));
}

/** Share of an all-F prefill that is spent in indexers: the stages of each layer timed apart. */
export async function measureIndexerShare(model, length, { threads }) {
  const stages = await StageModel.open(model, { device: "cpu", threads });
  let { hidden, rows } = await stages.embed(Int32Array.from(someIds(length, model.config.vocabSize)));
  let indexer = 0;
  let body = 0;
  for (let layer = 0; layer < model.config.numHiddenLayers; layer++) {
    let selected;
    indexer += await timed(async () => {
      ({ selected } = await stages.selectKeys(layer, hidden, rows));
    });
    body += await timed(async () => {
      ({ hidden } = await stages.runBody(layer, hidden, rows, selected));
    });
  }
  await stages.release();
  return indexer / (indexer + body);
}

/** Peak resident bytes of a process that loads the model and runs one prefill. */
export function measurePeakMemory(path, pattern, length, threads) {
  const script = fileURLToPath(import.meta.url);
  const { stdout, stderr, status } = spawnSync(process.execPath, [script, path, pattern, length, threads], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(stderr);
  return Number(stdout);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [path, pattern, length, threads] = process.argv.slice(2);
  const model = await openModel(path);
  const decoder = await openDecoder(model, pattern, {
    device: "cpu",
    threads: Number(threads),
    capacity: Number(length),
  });
  await decoder.prefill(someIds(Number(length), model.config.vocabSize));
  await decoder.release();
  console.log(process.resourceUsage().maxRSS * 1024);
}
