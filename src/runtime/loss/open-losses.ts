/** Which way of computing losses a device and a dtype take; the command's process and its children ask here alike. */
import type { ModelFolder } from "../../graph/model-folder.ts";
import { lossFrame } from "../device/frame-choice.ts";
import type { BackendSettings, SequenceLosses } from "./loss-backend.ts";
import { BatchedLosses } from "./sequence-loss.ts";
import { StagedLosses } from "./staged-loss.ts";

/** Bytes of device memory for the working set of one query chunk. */
const gpuChunkBytes = 8 * 2 ** 30;

export function openLosses(
  model: ModelFolder,
  windows: readonly Int32Array[],
  settings: BackendSettings,
): Promise<SequenceLosses> {
  return lossFrame(settings.device, settings.dtype) === "sequences"
    ? BatchedLosses.open(model, windows, { ...settings, chunkBytes: gpuChunkBytes })
    : StagedLosses.open(model, windows, settings);
}
