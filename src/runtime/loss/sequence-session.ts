/** The sequence graph that losses are computed with: its batches and chunks, what it takes of the device's memory, its session. */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import { keptTokens } from "../../graph/frames/head.ts";
import { buildSequenceGraph } from "../../graph/frames/sequence-graph.ts";
import { type SequenceGraphSettings, type SequenceShape, selectsKeys } from "../../graph/frames/sequence-rows.ts";
import { encodeModel } from "../../graph/graph-builder.ts";
import { kernelsOf } from "../../graph/layer/kernels.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { fullLayers } from "../../pattern/pattern.ts";
import { usesCudnn } from "../device/cudnn.ts";
import { gpuOf } from "../device/gpu.ts";
import { conversionLines, convertedAhead, weightConversion } from "../device/weight-conversion.ts";
import type { Dtype } from "../measurement.ts";
import { providerOf } from "../session/execution-provider.ts";
import { OnnxSession } from "../session/onnx-session.ts";
import type { BackendSettings } from "./loss-backend.ts";
import { sequenceShape, wantedTogether } from "./sequence-batch.ts";
import { describeNeed, deviceNeed, memoryOf, requireDeviceMemory, totalNeed } from "./sequence-memory.ts";

export interface SequenceLossSettings extends BackendSettings {
  /** Bytes of device memory that the working set of one chunk may take. */
  chunkBytes: number;
  /** Bytes of host memory for converting weights. Default: what is free. */
  hostBytes?: number;
  profilePrefix?: string;
}

/** Share of the device's memory that the working set of one chunk may take. */
const chunkShare = 1 / 16;

export interface SequenceSession {
  session: OnnxSession;
  /** Says which graph the session is of, and how it was opened. */
  form: string;
  /** It has run on sequences that were foreseen. */
  hasRun: boolean;
  shape: SequenceShape;
  settings: SequenceGraphSettings;
  /** Bytes of boundary states that are kept of a base. */
  kept: number;
  /** Batches whose states there is room for. */
  mostStates: number;
  /** The memory plan. */
  plan: string[];
}

/**
 * @param earlier was opened for sequences that were foreseen: its session is taken over if the graph is the same, or released
 * @throws RuntimeFailure if the device has too little memory
 */
export async function openSequenceSession(
  model: ModelFolder,
  windows: readonly Int32Array[],
  settings: SequenceLossSettings,
  earlier?: Pick<SequenceSession, "form" | "session"> & { release: () => Promise<void> },
): Promise<SequenceSession> {
  const { config } = model;
  const { device, dtype, threads } = settings;
  const precision = dtype === "float16" ? OnnxType.float16 : OnnxType.float;
  const provider = providerOf(device);
  const weights = await model.weights();
  const gpu = await gpuOf(device);
  const cudnn = await usesCudnn(device, gpu);
  // Sizes follow from all of the memory, not from what is free: a process that replaces a dead one takes the same.
  const memory = memoryOf(gpu);
  const total = memory?.total ?? Number.POSITIVE_INFINITY;
  const chunkBytes = Math.min(settings.chunkBytes, total * chunkShare);
  const conversion = weightConversion(config, weights, dtype, convertedAhead.losses, settings.hostBytes);
  const chosen = { cudnn, storedExperts: conversion.inRuns };
  const kernels = kernelsOf(provider, precision, chosen);
  const sized = (mostSequences?: number) => {
    const shape = sequenceShape(config, windows, chunkBytes, kernels, mostSequences);
    const states = stateBytes(config, shape, dtype) * Math.ceil(windows.length / shape.batch);
    const boundaries = states <= settings.stateBytes;
    return { shape, states, boundaries, need: deviceNeed(config, shape, { dtype, boundaries, conversion, kernels }) };
  };
  let sizes = sized(wantedTogether(windows, settings.together ?? windows.length));
  while (sizes.shape.batch > 1 && totalNeed(sizes.need) > total) sizes = sized(Math.floor(sizes.shape.batch / 2));
  const { shape, states, boundaries } = sizes;
  const top = settings.top === undefined ? {} : { top: keptTokens(config, settings.top) };
  const graphSettings = { precision, provider, boundaries, ...top, ...chosen };
  const form = JSON.stringify({ shape, graphSettings, device, threads, inRuns: conversion.inRuns });
  const foreseen = earlier?.form === form ? earlier.session : undefined;
  if (foreseen === undefined) {
    await earlier?.release();
    const left = earlier === undefined ? memory : memoryOf(await gpuOf(device));
    requireDeviceMemory(sizes.need, left?.free, device);
  }
  const session =
    foreseen ??
    (await OnnxSession.create(encodeModel(buildSequenceGraph(config, weights, shape, graphSettings)), config.name, {
      device,
      threads,
      folder: model.places.folder,
      solo: true,
      smallWorkspaces: true,
      // What float16 graphs multiply in float32, routers, are float16 and mostly bfloat16 values: TF32 holds them exactly.
      tf32: dtype === "float16",
      foldsUpTo: conversion.foldsUpTo,
      profilePrefix: settings.profilePrefix,
      recording: settings.recording,
    }));
  const batches = Math.ceil(windows.length / shape.batch);
  const plan = [
    `device memory: ${describeNeed(sizes.need)}`,
    `${batches} batches of ${shape.batch} sequences of ${shape.length} tokens in ${shape.chunks} chunks, ${dtype}`,
    boundaries
      ? `boundary states: ${mib(states)} of host memory`
      : `boundary states would take ${mib(states)} of host memory: every candidate runs all layers`,
    ...conversionLines(conversion),
  ];
  return {
    session,
    form,
    hasRun: foreseen !== undefined,
    shape,
    settings: graphSettings,
    kept: boundaries ? states : 0,
    mostStates: Math.floor(settings.stateBytes / stateBytes(config, shape, dtype)),
    plan,
  };
}

/** Bytes of host memory for the boundary states of one batch. */
function stateBytes(config: DsaConfig, shape: SequenceShape, dtype: Dtype): number {
  const rows = shape.batch * shape.length;
  const indexers = selectsKeys(config, shape) ? fullLayers(config.indexerLayers).length : 0;
  const width = (config.numHiddenLayers - 1) * config.hiddenSize * (dtype === "float16" ? 2 : 4);
  return rows * (width + 4 * indexers * config.indexTopk);
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
