/** Which way of computing losses a device and a dtype take; the command's process and its children ask here alike. */
import type { ModelFolder } from "../../graph/model-folder.ts";
import { lossFrame } from "../device/frame-choice.ts";
import type { BackendSettings, SequenceLosses } from "./loss-backend.ts";
import { BatchedLosses } from "./sequence-loss.ts";
import { StagedLosses } from "./staged-loss.ts";

/** Bytes of device memory for the working set of one query chunk. */
const gpuChunkBytes = 8 * 2 ** 30;

/** @param earlier of the same process and model, for windows that were foreseen: released, or of use again */
export async function openLosses(
  model: ModelFolder,
  windows: readonly Int32Array[],
  settings: BackendSettings,
  earlier?: SequenceLosses,
): Promise<SequenceLosses> {
  if (lossFrame(settings.device, settings.dtype) === "sequences") {
    const foreseen = earlier instanceof BatchedLosses ? earlier : undefined;
    return await BatchedLosses.open(model, windows, { ...settings, chunkBytes: gpuChunkBytes }, foreseen);
  }
  await earlier?.release();
  return await StagedLosses.open(model, windows, settings);
}
