/** `indexcache bench`: what patterns save in time and memory, beside what they could save at most. */
import { rm } from "node:fs/promises";
import { cpus, totalmem } from "node:os";
import { basename, dirname, resolve } from "node:path";
import process from "node:process";
import { type Command, InvalidArgumentError } from "commander";
import { z } from "zod";
import { clockNames, clocks } from "../base/clock.ts";
import { InterruptedError, RuntimeFailure, UsageError } from "../base/errors.ts";
import { makeTemporaryFolder, writeFileAtomically } from "../base/files.ts";
import { sum } from "../base/sum.ts";
import { type ReducedConfig, type Reduction, reduceConfig } from "../checkpoint/config/reduced-config.ts";
import { randomWeightBytes, writeRandomCheckpoint } from "../checkpoint/derived/random-checkpoint.ts";
import { elementsOf } from "../checkpoint/weights.ts";
import { type BenchFile, formatBenchFile } from "../formats/bench-file.ts";
import { formatLatencyFile } from "../formats/latency-file.ts";
import { readText } from "../formats/text-file.ts";
import { parseJson } from "../formats/validation.ts";
import { latentWidth } from "../graph/exported/contract.ts";
import { type ModelFolder, openModel } from "../graph/model-folder.ts";
import { fullLayers } from "../pattern/pattern.ts";
import { evenPattern } from "../pattern/schedule.ts";
import {
  benchMeasurement,
  geometryRecord,
  isWithinNoise,
  latencyRecord,
  type NamedPattern,
} from "../report/bench/bench-record.ts";
import { formatBenchReport } from "../report/bench/bench-report.ts";
import { formatBytes, formatCount, formatDuration } from "../report/quantities.ts";
import { cacheForm } from "../runtime/device/frame-choice.ts";
import { availableMemory } from "../runtime/device/host-memory.ts";
import { PatternTimer } from "../runtime/generate/pattern-timer.ts";
import { defaultThreads } from "../runtime/session/onnx-session.ts";
import { parseRetain } from "../search/retain.ts";
import { choice, type Flags, group, option, repeatable } from "./arguments/declared-option.ts";
import { beginToOpen, choosePattern, openDevice, requireIndexers, toolRecord } from "./arguments/inputs.ts";
import { modelOptions, openModelToRun } from "./arguments/opening.ts";
import {
  addModelArgument,
  demoModel,
  deviceOptions,
  dtypeOptions,
  layerCount,
  offsetOption,
  outputOptions,
  positiveNumber,
  repeatCount,
  wholeNumber,
} from "./arguments/options.ts";
import { proposedCommand, proposeUse, resultsBeside, searchedFiles } from "./console/next-command.ts";
import { requireWritable } from "./console/output-file.ts";
import { Countdown } from "./console/patience.ts";
import type { Terminal } from "./console/terminal.ts";
import { addWork } from "./console/work.ts";

const options = [
  ...modelOptions,
  ...group(
    "A model without weights:",
    option("--config <file>", "time a model of this config.json instead, with random weights"),
    option("--random-weights", "needed with --config: there are no others"),
    option("--layers <n>", "make it only so many layers deep", layerCount),
    option("--experts <n>", "with only so many routed experts", positiveNumber),
    option("--mlp-width <n>", "with MLPs and experts at most this wide", positiveNumber),
    option("--vocabulary <n>", "with only so many tokens", positiveNumber),
    option("--seed <n>", "seed of the random weights", wholeNumber, 0),
  ),
  ...group(
    "What is timed:",
    option(
      "--contexts <list>",
      "lengths of the context in tokens, with commas between",
      contextList,
      [1024, 8192],
      "1024,8192",
    ),
    repeatable("-p, --pattern <pattern>", "a pattern to time; may be given several times", "uniform ones"),
    offsetOption(),
    option("-r, --retain <list>", "without --pattern: uniform patterns that keep so many layers Full", "1/2,1/4"),
    option("--repeats <n>", "how often to time everything", repeatCount, 3),
    option("--decode-tokens <n>", "tokens to decode in each repeat", repeatCount, 16),
    option("--sample-chunks <n>", "time only so many query chunks of a prefill, at even distances", positiveNumber),
    choice(
      "--clock <name>",
      "wall, or cpu: time that this process computed, for --threads 1 on a busy machine",
      clockNames,
      "wall",
    ),
  ),
  ...group(
    "Files:",
    option("--latency <file>", "write the cost of a Full and a Shared layer here, for search"),
    option("-o, --output <file>", "write the bench file here, exactly; after every context"),
  ),
  ...deviceOptions,
  ...dtypeOptions,
  ...outputOptions,
] as const;

type BenchFlags = Flags<typeof options>;

const anyValue = z.unknown();

const help = `
Times prefill and decode with every indexer and with each pattern, all graphs open side by side and taking turns. The
indexers' share is measured between them: the same graph with every layer's selection given to it. Amdahl's limit is the
speed-up if Shared layers saved just that. In brackets the share by one indexer as a graph of its own; on CUDA, which is
timed with the graphs that run takes there, by one layer with and without it.

Without weights: --config with --random-weights makes a model of that shape. Attention and indexer are exact; --layers,
--experts, --mlp-width and --vocabulary make the rest fit. With --layers, the kinds of the last layers are taken.

Examples:
  $ indexcache bench --contexts 1024,8192
  $ indexcache bench ./model -p quarter.json -p uniform:4 --latency latency.json -o bench.json
  $ indexcache bench --config GLM-5/config.json --random-weights --layers 4 --experts 8 --mlp-width 512 \\
      --vocabulary 4096 --contexts 32768 --sample-chunks 6 --retain 1/4`;

export function addBenchCommand(program: Command): void {
  const command = program.command("bench").description("Time patterns, and what their indexers take");
  addModelArgument(command);
  const shown = "pattern retain contexts repeats config random-weights layers latency output device";
  addWork(command, { options, help, shown, stopping: "Stopping after the call at hand; Ctrl-C again kills" }, bench);
}

async function bench(path: string | undefined, flags: BenchFlags, terminal: Terminal): Promise<void> {
  requireSensibleFlags(path, flags);
  for (const file of [flags.output, flags.latency]) await requireWritable(file);
  const opening = beginToOpen(flags, terminal);
  if (flags.config === undefined) {
    const model = await openModelToRun(path ?? demoModel, flags, terminal);
    const patterns = await choosePatterns(model, flags);
    await opening;
    await model.checkWeights();
    await timePatterns(model, patterns, opening, null, flags, terminal);
    return;
  }
  const reduced = await readConfig(flags.config, flags);
  // Before they are written: what is refused is refused at once. Exact sums, with the caches, come later.
  const graphs = 2 + (flags.pattern.length || flags.retain.split(",").length);
  requireMemory(graphs * randomWeightBytes(reduced), `${graphs} graphs of random weights take`, availableMemory());
  const folder = await makeTemporaryFolder("bench");
  try {
    terminal.note(`random weights: ${formatBytes(randomWeightBytes(reduced))}`);
    await writeRandomCheckpoint(folder, reduced, flags.seed, terminal.signal);
    const model = await openModel(folder);
    const named = { ...model, config: { ...model.config, name: reduced.config.name } };
    const patterns = await choosePatterns(named, flags);
    await timePatterns(named, patterns, opening, { seed: flags.seed, reduced: reduced.reduced }, flags, terminal);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** About how many rows a chunk of a prefill has. */
const chunkRows = 512;

async function timePatterns(
  model: ModelFolder,
  patterns: readonly NamedPattern[],
  opening: ReturnType<typeof beginToOpen>,
  random: BenchFile["model"]["random_weights"],
  flags: BenchFlags,
  terminal: Terminal,
): Promise<void> {
  // Beside the patterns the graph without indexers.
  const timed = (patterns.length + 1) * flags.repeats;
  const most = flags.sampleChunks === undefined ? Number.POSITIVE_INFINITY : flags.sampleChunks * chunkRows;
  const amount = () => ({
    passed: timed * sum(flags.contexts.map((context) => Math.min(context, most))),
    decoded: timed * flags.decodeTokens * flags.contexts.length,
  });
  const { device, threads = defaultThreads() } = await (opening ??
    openDevice(flags, terminal, { work: { model, amount } }));
  const form = cacheForm(device, flags.dtype);
  const file = await benchFile(model, random, patterns, flags, { device, threads });
  const capacity = Math.max(...flags.contexts) + flags.decodeTokens;
  // Besides the patterns there is the graph without indexers, which is smaller than any of them.
  const graphs = [...file.patterns, ...file.patterns.slice(-1)].map(
    (entry) => entry.weight_bytes + capacity * (entry.latent_bytes_per_token + entry.indexer_key_bytes_per_token),
  );
  const bytes = graphs.reduce((total, graph) => total + graph, 0);
  // On CUDA patterns share a graph where there is no room for one of each.
  if (form === "growing") {
    requireMemory(bytes, `${graphs.length} graphs side by side, with their caches, take`, availableMemory());
  }
  const timer = await PatternTimer.open(
    model,
    patterns.map(({ pattern }) => pattern),
    { device, threads, capacity, clock: clocks[flags.clock], dtype: flags.dtype },
  );
  if (timer.oneGraph) file.settings.one_graph = true;
  for (const line of timer.plan) terminal.note(line);
  try {
    for (const context of flags.contexts) {
      const started = performance.now();
      const countdown = new Countdown(terminal, `chunks of ${formatCount(context)} tokens`);
      const { prefill, decode, chunks } = await timer.measure({
        context,
        repeats: flags.repeats,
        decodeTokens: flags.decodeTokens,
        signal: terminal.signal,
        onChunk: (timed, all) => countdown.tell(timed, all),
        ...(flags.sampleChunks === undefined ? {} : { sampledChunks: flags.sampleChunks }),
      });
      file.prefill.push(benchMeasurement(patterns, { context, tokens: context, timings: prefill, chunks }));
      file.decode.push(benchMeasurement(patterns, { context, tokens: 1, timings: decode }));
      if (flags.output !== undefined) await writeFileAtomically(flags.output, formatBenchFile(file));
      terminal.note(`timed ${formatCount(context)} tokens in ${formatDuration((performance.now() - started) / 1000)}`);
    }
  } catch (error) {
    if (!(error instanceof InterruptedError) || flags.output === undefined || file.prefill.length === 0) throw error;
    throw new InterruptedError(`Interrupted; "${flags.output}" has the contexts that were finished`, { cause: error });
  } finally {
    await timer.release();
  }
  const noisy = [...file.prefill, ...file.decode].filter(isWithinNoise);
  if (noisy.length > 0 && (flags.latency !== undefined || flags.json === true)) {
    terminal.warn(
      `in ${noisy.length} of ${file.prefill.length + file.decode.length} measurements noise is larger than the indexers' share: costs and limits of those mean nothing`,
    );
  }
  if (flags.latency !== undefined) await writeFileAtomically(flags.latency, formatLatencyFile(latencyRecord(file)));
  terminal.result(flags.json === true ? formatBenchFile(file) : formatBenchReport(file, terminal.resultWidth));
  for (const written of [flags.output, flags.latency]) if (written !== undefined) terminal.note(`written: ${written}`);
  await proposeAfterBench(model.config.modelType, random === null ? model.path : undefined, flags, terminal);
}

async function proposeAfterBench(
  architecture: string,
  path: string | undefined,
  { pattern: patterns, output, device }: BenchFlags,
  terminal: Terminal,
): Promise<void> {
  const searched = await searchedFiles(patterns);
  const last = patterns.at(-1);
  if (output !== undefined) {
    const judged = await resultsBeside(searched, "eval");
    terminal.next("all on one page", proposedCommand(["report", ...searched, ...judged, output, "-o", "report"]));
  } else if (last !== undefined && /\.json(@|$)|^[FS]+$/.test(last)) {
    proposeUse(terminal, { pattern: last, architecture, model: path, device });
  }
}

/** A bench file without measurements. */
async function benchFile(
  model: ModelFolder,
  random: BenchFile["model"]["random_weights"],
  patterns: readonly NamedPattern[],
  flags: BenchFlags,
  { device, threads }: { device: string; threads: number },
): Promise<BenchFile> {
  const { config } = model;
  const weights = await model.weights();
  const size = flags.dtype === "float16" ? 2 : 4;
  return {
    kind: "indexcache-bench",
    schema_version: 1,
    model: {
      name: config.name,
      architecture: config.modelType,
      layers: config.numHiddenLayers,
      geometry: geometryRecord(config),
      random_weights: random,
    },
    machine: {
      cpu: cpus()[0]?.model.trim() ?? "unknown",
      threads,
      memory_bytes: totalmem(),
      platform: `${process.platform} ${process.arch}`,
    },
    settings: { repeats: flags.repeats, decode_tokens: flags.decodeTokens, clock: flags.clock },
    patterns: patterns.map(({ name, pattern }) => ({
      name,
      index_topk_pattern: pattern,
      full_layers: fullLayers(pattern).length,
      weight_bytes: size * elementsOf(weights, pattern),
      latent_bytes_per_token: size * config.numHiddenLayers * latentWidth(config),
      indexer_key_bytes_per_token: size * fullLayers(pattern).length * config.indexHeadDim,
    })),
    prefill: [],
    decode: [],
    tool: toolRecord(device, flags.dtype),
  };
}

/** Every indexer first, then what was asked for. */
async function choosePatterns(model: ModelFolder, flags: BenchFlags): Promise<NamedPattern[]> {
  const { numHiddenLayers: layers, indexerLayers } = model.config;
  const patterns: NamedPattern[] = [{ name: "full", pattern: indexerLayers }];
  for (const text of flags.pattern) {
    const name = text.endsWith(".json") ? basename(text, ".json") : text;
    patterns.push({ name, pattern: await choosePattern(model, { pattern: text, offset: flags.offset }) });
  }
  if (flags.pattern.length > 0) return patterns;
  for (const text of flags.retain.split(",").map((part) => part.trim())) {
    const full = parseRetain(text, layers);
    requireIndexers([full], indexerLayers);
    patterns.push({ name: `uniform ${text}`, pattern: evenPattern(full, indexerLayers) });
  }
  return patterns;
}

async function readConfig(path: string, reduction: Reduction): Promise<ReducedConfig> {
  const text = await readText(path, `"${path}"`, { hint: "--config names the config.json of a model" });
  const { layers, experts, mlpWidth, vocabulary } = reduction;
  const wanted = Object.fromEntries(
    Object.entries({ layers, experts, mlpWidth, vocabulary }).filter(([, value]) => value !== undefined),
  );
  return reduceConfig(parseJson(text, anyValue, `"${path}"`), path, basename(dirname(resolve(path))), wanted);
}

function requireSensibleFlags(path: string | undefined, flags: BenchFlags): void {
  if (flags.config !== undefined && path !== undefined) throw new UsageError("MODEL and --config exclude each other");
  if (flags.config !== undefined && flags.randomWeights !== true) {
    throw new UsageError("--config has no weights to time", { hint: "add --random-weights" });
  }
  if (flags.config !== undefined) return;
  const foreign = (["randomWeights", "layers", "experts", "mlpWidth", "vocabulary"] as const).find(
    (name) => flags[name] !== undefined,
  );
  if (foreign === undefined) return;
  const option = foreign.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  throw new UsageError(`--${option} belongs to --config: a model with weights is timed as it is`);
}

/** Loading takes more than what is loaded: folded copies of one tensor at a time. */
const loadingShare = 1.2;

function requireMemory(bytes: number, what: string, free: number): void {
  if (loadingShare * bytes <= free) return;
  throw new RuntimeFailure(`${what} ${formatBytes(bytes)} of memory; ${formatBytes(free)} are free`, {
    hint: "time fewer patterns at once, or a smaller model: --layers, --experts, --mlp-width, --vocabulary",
  });
}

function contextList(text: string): number[] {
  const lengths = [...new Set(text.split(",").map((part) => wholeNumber(part.trim())))].sort((a, b) => a - b);
  if (lengths[0] === 0) throw new InvalidArgumentError("Every length must be 1 or more.");
  return lengths;
}
