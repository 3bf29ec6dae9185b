/**
 * LM loss of patterns on a fixed set of windows, in this process or spread over several. See `staged-loss.ts` for what is
 * reused between patterns and `parallel-loss.ts` for the processes.
 */
import { freemem } from "node:os";
import type { ModelFolder } from "../graph/model-folder.ts";
import type { Pattern } from "../pattern/pattern.ts";
import { meanLoss } from "./mean-loss.ts";
import type { Dtype, LayerExecutions, Measurement, PatternEvaluator, SequenceLoss } from "./measurement.ts";
import { defaultThreads, type SessionSettings } from "./onnx-session.ts";
import { ParallelLosses } from "./parallel-loss.ts";
import { BatchedLosses } from "./sequence-loss.ts";
import { StagedLosses } from "./staged-loss.ts";

export interface LossSettings {
  device: SessionSettings["device"];
  /** Weights and activations; scores, softmax and norms are float32 in any case. Default float32. */
  dtype?: Dtype;
  /** CPU threads in all. */
  threads?: number;
  /** Processes that share the windows; chosen by cores, windows and memory where absent. */
  workers?: number;
  /** Bytes that boundary states may take in all; sequences beyond it are run from the first layer each time. */
  stateBytes?: number;
}

/** Losses of each window for one pattern: what a process can answer. */
export interface SequenceLosses {
  evaluate(
    pattern: Pattern,
    options: EvaluateOptions,
  ): Promise<{ sequences: SequenceLoss[]; executions: LayerExecutions }>;
  readonly plan: string[];
  release(): Promise<void>;
}

export interface EvaluateOptions {
  base?: Pattern;
  signal?: AbortSignal;
}

/** Share of the free memory that boundary states may take where `stateBytes` does not say. */
const stateShare = 0.4;
/** Share of the free memory that the weights of all processes together may take. */
const weightShare = 0.5;
/** Bytes of a loaded process for each byte of weights on disk: fp32 of bf16, and what folding leaves behind. */
const loadedPerStored = 2.6;

/** Bytes of device memory for the working set of one query chunk. */
const gpuChunkBytes = 8 * 2 ** 30;

/** Opens an evaluator over windows of token ids; each window starts at position 0. */
export async function openLossEvaluator(
  model: ModelFolder,
  windows: readonly Int32Array[],
  settings: LossSettings,
): Promise<PatternEvaluator> {
  const stateBytes = settings.stateBytes ?? Math.floor(freemem() * stateShare);
  const threads = settings.threads ?? defaultThreads();
  const workers = settings.workers ?? sensibleWorkers(model, windows.length, settings.device, threads);
  const own = { device: settings.device, stateBytes };
  const dtype = settings.dtype ?? "float32";
  const losses: SequenceLosses =
    settings.device !== "cpu" || dtype !== "float32"
      ? await BatchedLosses.open(model, windows, { ...own, threads, dtype, chunkBytes: gpuChunkBytes })
      : workers > 1
        ? await ParallelLosses.open(model, windows, {
            ...own,
            workers,
            threads: Math.max(1, Math.floor(threads / workers)),
          })
        : await StagedLosses.open(model, windows, { ...own, threads });
  return {
    plan: losses.plan,
    release: () => losses.release(),
    evaluate: async (pattern, options = {}): Promise<Measurement> => {
      const started = performance.now();
      const { sequences, executions } = await losses.evaluate(pattern, options);
      const seconds = (performance.now() - started) / 1000;
      return { pattern, ...meanLoss(sequences), sequences, seconds, executions };
    },
  };
}

/**
 * One process for each core, as long as the weights fit: threads inside a layer's small products gain far less than
 * whole sequences side by side (docs/log.md). A GPU is one process.
 */
function sensibleWorkers(model: ModelFolder, windows: number, device: string, threads: number): number {
  if (device !== "cpu") return 1;
  const byMemory = Math.floor((weightShare * freemem()) / (loadedPerStored * model.weightBytes));
  return Math.max(1, Math.min(threads, windows, byMemory));
}
