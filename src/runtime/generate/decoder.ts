import { RuntimeFailure } from "../../base/errors.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import type { ModelWeights } from "../../checkpoint/weights.ts";
import type { LayerRange } from "../../graph/exported/contract.ts";
import { buildFullModel, passedOn } from "../../graph/frames/full-model.ts";
import type { CacheForm } from "../../graph/frames/generation-caches.ts";
import {
  buildGenerationGraph,
  type GenerationSettings,
  generationCaches,
  precisionOf,
} from "../../graph/frames/generation-graph.ts";
import { encodeModel } from "../../graph/graph-builder.ts";
import { kernelsOf, type Provider } from "../../graph/layer/kernels.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { fullLayers, isFull, type Pattern } from "../../pattern/pattern.ts";
import { cacheForm } from "../device/frame-choice.ts";
import { conversionLines, convertedAhead, weightConversion } from "../device/weight-conversion.ts";
import { deviceMemory } from "../loss/sequence-memory.ts";
import type { ComputeDevice, Dtype } from "../measurement.ts";
import { providerOf } from "../session/execution-provider.ts";
import {
  defaultThreads,
  flushDenormals,
  loadRuntime,
  OnnxSession,
  type SessionSettings,
} from "../session/onnx-session.ts";
import type { Recording } from "../session/recording.ts";
import { chunkBytes } from "../stages/chunks.ts";
import { keepsWhatIsWritten } from "./cache-check.ts";
import { CachedDecoder } from "./cached-decoder.ts";
import { CachedLayers, type LayerSettings } from "./cached-layers.ts";
import { FedCache } from "./fed-cache.ts";
import { capacityFor, type GenerationNeed, generationNeed, totalNeed } from "./generation-runs.ts";
import { rangesInTurn } from "./layer-ranges.ts";
import { LayerThread } from "./layer-thread.ts";
import { OverlappedDecoder } from "./overlapped-decoder.ts";

export interface DecoderSettings {
  device: SessionSettings["device"];
  /** float16 on CUDA only. */
  dtype?: Dtype;
  threads?: number;
  /** Tokens that the caches are made for; on CUDA they do not grow. */
  capacity?: number;
  /** Patterns that the decoder may take as well (`startAgain`), with the same weights: of graphs with caches of a fixed size. */
  others?: readonly Pattern[];
  /** Bytes of host memory for converting weights. Default: what is free. */
  hostBytes?: number;
  /** Whose generation graph runs, with caches that are fed, on whatever device: in tests. */
  provider?: Provider;
  profilePrefix?: string;
  recording?: Recording;
  /** The only session of its process; default true. */
  solo?: boolean;
}

const defaultCapacity = 1024;

/** What is decided about a decoder before anything is loaded. */
interface DecoderPlan {
  form: CacheForm;
  weights: ModelWeights;
  /** Full where any of the patterns is. */
  held: Pattern;
  /** Of a generation graph. */
  fixed: GenerationSettings | undefined;
  need: GenerationNeed | undefined;
  /** Of its session. */
  foldsUpTo?: number | undefined;
  lines: string[];
}

async function planDecoder(model: ModelFolder, pattern: Pattern, options: DecoderSettings): Promise<DecoderPlan> {
  const { device, dtype = "float32", capacity = defaultCapacity, provider = providerOf(device) } = options;
  const { config } = model;
  const form = options.provider === undefined ? cacheForm(device, dtype) : "fed";
  const weights = await model.weights();
  if (form === "growing") {
    return {
      form,
      weights,
      held: pattern,
      fixed: undefined,
      need: undefined,
      lines: growingPlan(config, pattern, capacity),
    };
  }
  const patterns = [pattern, ...(options.others ?? [])];
  const layers = [...pattern].map((_, layer) => patterns.filter((each) => isFull(each, layer)).length);
  const held = layers.map((count) => (count > 0 ? "F" : "S")).join("") as Pattern;
  const switched = [...layers.keys()].filter((layer) => layers[layer] !== 0 && layers[layer] !== patterns.length);
  const precision = precisionOf(dtype);
  const conversion = weightConversion(config, weights, dtype, convertedAhead.decoding, options.hostBytes);
  const storedExperts = conversion.inRuns;
  const kernels = kernelsOf(provider, precision, { storedExperts });
  const rows = capacityFor(config, capacity);
  const fixed = {
    ...{ precision, provider, caches: form, capacity: rows },
    storedExperts,
    ...(switched.length === 0 ? {} : { switched }),
  };
  const need = generationNeed(config, conversion, held, kernels, rows, dtype === "float16" ? 2 : 4);
  const lines = [
    `device memory: ${describe(need)}`,
    `caches of ${rows} tokens, ${dtype}, ${form === "resident" ? "on the device" : "in host memory: they cross with every run"}`,
    ...conversionLines(conversion),
  ];
  return { form, weights, held, fixed, need, foldsUpTo: conversion.foldsUpTo, lines };
}

/** What a decoder takes of a GPU's memory; undefined on a CPU. */
export async function decoderNeed(
  model: ModelFolder,
  pattern: Pattern,
  options: DecoderSettings,
): Promise<GenerationNeed | undefined> {
  return (await planDecoder(model, pattern, options)).need;
}

/** Does every run of a decoder convert the weights that it reads? */
export async function convertsInRuns(model: ModelFolder, pattern: Pattern, options: DecoderSettings): Promise<boolean> {
  return (await planDecoder(model, pattern, options)).fixed?.storedExperts === true;
}

/**
 * Opens a decoder for one sequence.
 * @throws UsageError for a dtype that the device does not generate in
 * @throws RuntimeFailure where the device has less memory than weights, caches and one run take, or loses what is in its
 *   caches
 */
export async function openDecoder(
  model: ModelFolder,
  pattern: Pattern,
  options: DecoderSettings,
): Promise<CachedDecoder> {
  const { device, dtype = "float32", capacity = defaultCapacity } = options;
  const { config } = model;
  const { form, weights, held, fixed, need, foldsUpTo, lines } = await planDecoder(model, pattern, options);
  await requireDeviceRoom(need, device);
  const graph =
    fixed === undefined
      ? buildFullModel(config, weights, pattern, undefined, capacity)
      : buildGenerationGraph(config, weights, held, fixed);
  const { Tensor: tensor } = await loadRuntime();
  const session = await OnnxSession.create(encodeModel(graph), `${config.name} ${pattern}`, {
    device,
    threads: options.threads ?? defaultThreads(),
    folder: model.places.folder,
    solo: options.solo ?? true,
    // Index scores multiply float16 values then: TF32 holds them exactly.
    tf32: dtype === "float16",
    foldsUpTo,
    ...(options.profilePrefix === undefined ? {} : { profilePrefix: options.profilePrefix }),
    ...(options.recording === undefined ? {} : { recording: options.recording }),
  });
  const names = form === "resident" ? [] : generationCaches(config, held);
  const caches = names.map((name) => new FedCache(name, fixed?.capacity ?? capacity, dtype, form === "growing"));
  const open = { config, held, session, tensor, fixed, tokens: capacity, bytesPerElement: dtype === "float16" ? 2 : 4 };
  const decoder = new CachedDecoder(pattern, open, caches, lines);
  // Without a layer nothing is written: `bench` times embedding and head alone.
  const writes = form === "resident" && capacity >= 2 && config.numHiddenLayers > 0;
  if (writes && !(await keepsWhatIsWritten(decoder))) {
    await decoder.release();
    throw new RuntimeFailure("This ONNX Runtime does not keep caches on the device from one run to the next", {
      hint: "use --dtype float32, or the version of onnxruntime-node that package.json names",
    });
  }
  return decoder;
}

async function requireDeviceRoom(need: GenerationNeed | undefined, device: ComputeDevice): Promise<void> {
  const free = need === undefined ? undefined : (await deviceMemory(device))?.free;
  if (need === undefined || free === undefined || totalNeed(need) <= free) return;
  throw new RuntimeFailure(`The model needs about ${describe(need)}; ${device} has ${gib(free)} free`, {
    hint: "use a shorter prompt, fewer new tokens (--max-new-tokens), --dtype float16, or --device cpu",
  });
}

/** @throws RuntimeFailure where `openDecoder` would, before anything is loaded */
export async function requireDecoderRoom(
  model: ModelFolder,
  pattern: Pattern,
  options: DecoderSettings,
): Promise<void> {
  await requireDeviceRoom(await decoderNeed(model, pattern, options), options.device);
}

/**
 * Is a generation faster with its layers in two threads (`overlapped-decoder.ts`)? Opening and its prompt are, from a few chunks
 * on; decoding is not (1.1 to 1.3 times as long on two threads), since each thread's graphs have half of the threads and wait for
 * the other's. What opening saves is lost again in 130 to 300 tokens, what 1,024 tokens of prompt save in some 30.
 */
export function overlaps(
  { device, dtype, threads = defaultThreads(), recording }: DecoderSettings,
  { numHiddenLayers }: DsaConfig,
  { prompt, newTokens }: { prompt: number; newTokens: number },
): boolean {
  const computes = device === "cpu" && dtype !== "float16" && threads >= 2 && numHiddenLayers >= 2;
  // A profile is of one session.
  return computes && recording === undefined && prompt >= 512 && newTokens <= 128 + prompt / 32;
}

/** Opens a decoder on a CPU for one sequence whose prompt is long. */
export async function openOverlappedDecoder(
  model: ModelFolder,
  pattern: Pattern,
  { threads = defaultThreads(), capacity = defaultCapacity }: Pick<DecoderSettings, "threads" | "capacity">,
): Promise<OverlappedDecoder> {
  const { config } = model;
  const weights = await model.weights();
  const ranges = rangesInTurn(pattern);
  const settings = (range: LayerRange): LayerSettings => ({
    graph: encodeModel(buildFullModel(config, weights, pattern, range, capacity)),
    name: `${config.name} ${pattern}, layers ${range.from} to ${range.to - 1}`,
    threads: Math.max(1, Math.floor(threads / 2)),
    folder: model.places.folder,
    passes: passedOn(config, pattern, range),
    caches: generationCaches(config, pattern),
    capacity,
  });
  const ofThread = (thread: number) => ranges.filter((_, index) => index % 2 === thread);
  await flushDenormals();
  const others = new LayerThread(ofThread(1).map(settings));
  try {
    const own = await CachedLayers.openAll(ofThread(0).map(settings));
    await others.opened;
    const lists = [0, 1].map((thread) =>
      ofThread(thread)
        .map(({ from, to }) => (to - from === 1 ? from : `${from} to ${to - 1}`))
        .join(", "),
    );
    const lines = [
      ...growingPlan(config, pattern, capacity),
      `layers ${lists[0]} in one thread, ${lists[1]} in another, chunks side by side`,
    ];
    return new OverlappedDecoder(config, pattern, own, others, lines);
  } catch (error) {
    await others.end();
    throw error;
  }
}

function growingPlan(config: DsaConfig, pattern: Pattern, capacity: number): string[] {
  const widths = generationCaches(config, pattern).map(({ width }) => width);
  const { numHiddenLayers: layers, indexHeadDim } = config;
  return [
    `caches: ${4 * widths.reduce((sum, width) => sum + width, 0)} bytes a token = 4 x (${layers} layers x ${widths[0]} latent + ${fullLayers(pattern).length} Full layers x ${indexHeadDim} indexer key)`,
    `one chunk: at most ${(chunkBytes(config, capacity) / 2 ** 20).toFixed(1)} MiB at ${capacity} tokens`,
  ];
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

function describe(need: GenerationNeed): string {
  const { weights, caches, run } = need;
  return `${gib(totalNeed(need))} = weights ${gib(weights)} + caches ${gib(caches)} + one run ${gib(run)}`;
}
