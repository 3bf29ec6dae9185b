/** Which way of computing losses a device and a dtype take; the command's process and its children ask here alike. */
import type { ModelFolder } from "../../graph/model-folder.ts";
import { lossFrame } from "../device/frame-choice.ts";
import type { ComputeDevice, Dtype } from "../measurement.ts";
import type { LayerRoom } from "../stages/stage-sessions.ts";
import type { BackendSettings, SequenceLosses } from "./loss-backend.ts";
import { BatchedLosses } from "./sequence-loss.ts";
import { StagedLosses } from "./staged-loss.ts";

/** What one process is told about its share of the work. */
export interface ProcessSettings extends Omit<BackendSettings, "recording"> {
  device: ComputeDevice;
  dtype: Dtype;
  /** Bytes of a temporary file for boundary states beyond that. */
  spillBytes?: number | undefined;
  /** Which layers stay in memory where not all of them have room; then the device is `cpu`, in float32. */
  room?: LayerRoom | undefined;
}

/** Bytes of device memory for the working set of one query chunk. */
const gpuChunkBytes = 8 * 2 ** 30;

export function openLosses(
  model: ModelFolder,
  windows: readonly Int32Array[],
  settings: ProcessSettings & Pick<BackendSettings, "recording">,
): Promise<SequenceLosses> {
  return lossFrame(settings.device, settings.dtype) === "sequences"
    ? BatchedLosses.open(model, windows, { ...settings, chunkBytes: gpuChunkBytes })
    : StagedLosses.open(model, windows, settings);
}
