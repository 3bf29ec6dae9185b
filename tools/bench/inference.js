/** Whole prefills as `run` makes them: their ids, what they must have done, and peak memory. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { openModel } from "../../dist/graph/model-folder.js";
import { openDecoder } from "../../dist/runtime/generate/decoder.js";
import { chunksOf } from "../../dist/runtime/stages/chunks.js";
import { countFull, requireExecutions } from "../executions.js";

/** Token ids that do not repeat for a while; what they say does not matter to the clock. */
export function someIds(count, vocabulary) {
  return Array.from({ length: count }, (_, i) => (i * 7919 + 13) % vocabulary);
}

/**
 * A prefill that ran every Full layer's indexer on every chunk that needs one.
 * @param before executions of indexers until then
 */
export function requirePrefill(model, decoder, pattern, length, before = 0) {
  const scoring = chunksOf(model.config, 0, length).filter(({ end }) => end > model.config.indexTopk).length;
  requireExecutions(
    `prefill of ${length} tokens with ${pattern}`,
    { indexers: decoder.indexerExecutions.made - before },
    { indexers: scoring * countFull(pattern) },
  );
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
  requirePrefill(model, decoder, pattern, Number(length));
  await decoder.release();
  console.log(process.resourceUsage().maxRSS * 1024);
}
