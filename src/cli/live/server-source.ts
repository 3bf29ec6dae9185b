/** Losses from a server: preflight, notes that do not disturb a view, and the pattern back at the end. */
import type { CalibrationSet } from "../../calibration/calibration-set.ts";
import type { PatternFile } from "../../formats/pattern-schema.ts";
import type { ModelDescription } from "../../graph/model-folder.ts";
import { type LiveModel, numbersOf } from "../../live/live-model.ts";
import { type Preflight, preflight } from "../../live/preflight.ts";
import type { Terminal } from "../console/terminal.ts";
import type { LossSource } from "../loss-source.ts";
import { lossesOn, openServers, type ServerFlags } from "./server-options.ts";
import { describePreflight } from "./server-words.ts";

/** A server that is open, before it is known what is to be measured there. */
export interface OpenServer {
  served: LiveModel;
  /** @param measured indices of the sequences that the preflight measures */
  source(set: CalibrationSet, measured: readonly number[]): LossSource;
}

export async function openServer(
  flags: ServerFlags & { server: string },
  model: ModelDescription,
  terminal: Terminal,
): Promise<OpenServer> {
  const served = await openServers(flags, model, terminal);
  try {
    await served.prepare(terminal.signal);
  } catch (error) {
    await served.release();
    throw error;
  }
  const { indexTopk } = model.config;
  const source = (set: CalibrationSet, measured: readonly number[]): LossSource => {
    let found: Preflight | undefined;
    const { description } = served;
    return {
      numbers: { ...numbersOf(description), servers: served.replicas.length, scored_from: indexTopk },
      tool: { runtime: description.title, device: "server", dtype: description.dtype },
      server: () => serverRecord(served, indexTopk, found?.noise ?? 0),
      secondsEach: () => found?.seconds,
      divergences: false,
      async use(objective, work) {
        const { concurrency } = flags;
        try {
          const losses = lossesOn(served, set, { objective, indexTopk, concurrency }, terminal);
          found = await preflight(served, losses, measured, indexTopk, terminal.signal);
          for (const line of describePreflight(found)) terminal.note(line);
          return await work(losses);
        } finally {
          await served.release();
        }
      },
    };
  };
  return { served, source };
}

function serverRecord(served: LiveModel, scoredFrom: number, noise: number): PatternFile["server"] {
  const { engine, title, servedModel, tensorParallel, pipelineParallel, dtype, kvCacheDtype, headDtype } =
    served.description;
  return {
    engine,
    title,
    served_model: servedModel,
    servers: served.replicas.length,
    tensor_parallel: tensorParallel,
    pipeline_parallel: pipelineParallel,
    dtype,
    kv_cache_dtype: kvCacheDtype,
    head_dtype: headDtype,
    scored_from: scoredFrom,
    noise,
  };
}
