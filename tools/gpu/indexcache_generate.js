/**
 * Prefill and decode in indexcache, every pattern beside the others in one process: one JSON line for each length and
 * pattern, with the indexers' share where a pattern without any is among them.
 *
 *   node tools/gpu/indexcache_generate.js random --ids random/ids-131072.json --lengths 8192,32768 \
 *     --patterns FFFF,FSSS,SSSS --dtype float16 --new-tokens 64 --repeats 3
 *
 * A context is the first tokens of the id file's first sequence. Prefill and decode are timed in turn, pattern by pattern;
 * medians are taken. SSSS reads the most recent keys: the same graph with every indexer bypassed. By Amdahl no pattern
 * with f of n indexers is faster than F / (F - (1 - f / n)(F - S)), where F and S are the seconds of all-F and of SSSS.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { OnnxType } from "../../dist/checkpoint/dtype.js";
import { kernelsOf } from "../../dist/graph/layer/kernels.js";
import { openModel } from "../../dist/graph/model-folder.js";
import { openDecoder } from "../../dist/runtime/generate/decoder.js";
import { promptRuns } from "../../dist/runtime/generate/generation-runs.js";
import { mostLikely } from "../../dist/runtime/generate/sampling.js";
import { providerOf } from "../../dist/runtime/session/execution-provider.js";
import { readArguments } from "../arguments.js";
import { countFull, requireExecutions } from "../executions.js";

const { values, positionals } = readArguments(
  {
    ids: { type: "string", required: true },
    lengths: { type: "string", required: true },
    patterns: { type: "string", required: true },
    device: { type: "string", default: "cuda" },
    dtype: { type: "string", default: "float16" },
    "new-tokens": { type: "string", default: "64" },
    repeats: { type: "string", default: "3" },
    // Prompts longer than this are not warmed up and are prefilled once.
    once: { type: "string", default: "40000" },
    profile: { type: "string" },
  },
  { named: ["MODEL"] },
);
const lengths = values.lengths.split(",").map(Number);
const patterns = values.patterns.split(",");
const steps = Number(values["new-tokens"]);
const repeats = Number(values.repeats);
const [ids] = JSON.parse(readFileSync(values.ids, "utf8"));
const model = await openModel(positionals[0]);

const decoders = [];
for (const pattern of patterns) {
  const started = performance.now();
  const decoder = await openDecoder(model, pattern, {
    device: values.device,
    dtype: values.dtype,
    capacity: Math.max(...lengths) + steps,
    ...(values.device === "cpu" ? { provider: "cpu" } : {}),
    threads: 8,
    ...(values.profile === undefined ? {} : { profilePrefix: values.profile }),
  });
  decoders.push({ pattern, decoder, load: (performance.now() - started) / 1000 });
}

const precision = values.dtype === "float16" ? OnnxType.float16 : OnnxType.float;
const kernels = kernelsOf(providerOf(values.device), precision);
/** Scoring runs of a prompt, and of tokens decoded after it: one counts for every layer, run by its indexer or spared. */
const scoringRuns = (length, decoded) =>
  decoded === 0
    ? promptRuns(model.config, kernels, 0, length).filter(({ end }) => end > model.config.indexTopk).length
    : Array.from({ length: decoded }, (_, step) => length + step + 1).filter((end) => end > model.config.indexTopk)
        .length;

/** Seconds of one pass whose indexers are counted. */
async function timed(decoder, pattern, what, runs, work) {
  const before = { ...decoder.indexerExecutions };
  const started = performance.now();
  await work();
  const seconds = (performance.now() - started) / 1000;
  const { made, saved } = decoder.indexerExecutions;
  const full = countFull(pattern);
  requireExecutions(
    `${what} with ${pattern}`,
    { made: made - before.made, saved: saved - before.saved },
    { made: runs * full, saved: runs * (pattern.length - full) },
  );
  return seconds;
}

for (const length of lengths) {
  const prompt = ids.slice(0, length);
  const prefillRuns = scoringRuns(length, 0);
  const decodeRuns = scoringRuns(length, steps);
  const results = decoders.map(() => ({ prefill: [], decode: [], tokens: [] }));
  const rounds = length > Number(values.once) ? 1 : repeats + 1;
  for (let round = 0; round < rounds; round++) {
    for (const [index, { decoder, pattern }] of decoders.entries()) {
      decoder.rewind(0);
      const seconds = await timed(decoder, pattern, `prefill of ${length} tokens`, prefillRuns, async () => {
        results[index].first = mostLikely(await decoder.prefill(prompt));
      });
      if (round > 0 || rounds === 1) results[index].prefill.push(seconds);
    }
  }
  for (let round = 0; round <= repeats; round++) {
    for (const [index, { decoder, pattern }] of decoders.entries()) {
      decoder.rewind(length);
      const tokens = [results[index].first];
      const seconds = await timed(decoder, pattern, `${steps} tokens after ${length}`, decodeRuns, async () => {
        for (let step = 0; step < steps; step++) tokens.push(mostLikely(await decoder.decode(tokens.at(-1))));
      });
      if (round > 0) results[index].decode.push(seconds / steps);
      results[index].tokens = tokens;
    }
  }
  for (const phase of ["prefill", "decode"]) {
    const seconds = results.map((result) => median(result[phase]));
    const full = seconds[patterns.findIndex((pattern) => /^F+$/.test(pattern))];
    const bypassed = seconds[patterns.findIndex((pattern) => /^S+$/.test(pattern))];
    for (const [index, { pattern, load, decoder }] of decoders.entries()) {
      const line = {
        engine: "indexcache",
        phase,
        length,
        pattern,
        device: values.device,
        dtype: values.dtype,
        seconds: seconds[index],
        tokens_per_second: (phase === "prefill" ? length : 1) / seconds[index],
        all: results[index][phase],
      };
      if (full !== undefined && bypassed !== undefined) {
        const kept = [...pattern].filter((letter) => letter === "F").length / pattern.length;
        line.indexer_share = (full - bypassed) / full;
        line.speed_up = full / seconds[index];
        line.amdahl_limit = full / (full - (1 - kept) * (full - bypassed));
      }
      if (phase === "decode") Object.assign(line, { tokens: results[index].tokens });
      else Object.assign(line, { load_seconds: load, plan: decoder.plan, device_bytes: deviceBytes() });
      console.log(JSON.stringify(line));
    }
  }
}
for (const { decoder } of decoders) await decoder.release();

function median(all) {
  return [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)];
}

/** Device memory in use by all sessions: the runtime's arenas keep their peaks. */
function deviceBytes() {
  try {
    const query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits"];
    return Number(execFileSync("nvidia-smi", query, { encoding: "utf8" }).split("\n")[0]) * 2 ** 20;
  } catch {
    return undefined;
  }
}
