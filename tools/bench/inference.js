/** Prefill and decode of fixed patterns: arms interleaved in one process, medians. */
import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openModel } from "../../dist/graph/model-folder.js";
import { openDecoder } from "../../dist/runtime/decoder.js";

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

/** Share of a prefill's kernel time that is spent in indexers, from ONNX Runtime's own profile. */
export async function measureIndexerShare(model, pattern, length, { threads }) {
  const folder = await mkdtemp(join(tmpdir(), "indexcache-profile-"));
  try {
    const profilePrefix = join(folder, "profile");
    const decoder = await openDecoder(model, pattern, { device: "cpu", threads, capacity: length, profilePrefix });
    await decoder.prefill(someIds(length, model.config.vocabSize));
    await decoder.release();
    const [file] = await readdir(folder);
    let indexer = 0;
    let all = 0;
    for (const { cat, name, dur, args } of JSON.parse(await readFile(join(folder, file), "utf8"))) {
      // An If's own time holds that of the nodes in its branch.
      if (cat !== "Node" || !name.endsWith("_kernel_time") || args.op_name === "If") continue;
      all += dur;
      if (/layer\.\d+\.indexer\//.test(name)) indexer += dur;
    }
    return indexer / all;
  } finally {
    await rm(folder, { recursive: true });
  }
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
  const decoder = await openDecoder(model, pattern, { device: "cpu", threads: Number(threads), capacity: Number(length) });
  await decoder.prefill(someIds(Number(length), model.config.vocabSize));
  await decoder.release();
  console.log(process.resourceUsage().maxRSS * 1024);
}
