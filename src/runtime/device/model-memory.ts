/** Whether a model has room at all, before anything of it is loaded. */

import { join } from "node:path";
import { RuntimeFailure } from "../../base/errors.ts";
import { formatBytes, formatMagnitude } from "../../base/quantities.ts";
import { quoteWord } from "../../base/shell.ts";
import { elementsOf } from "../../checkpoint/weights.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Device, Dtype } from "../measurement.ts";
import { cudaIndex } from "../session/execution-provider.ts";
import { queryGpus } from "./gpu.ts";
import { availableMemory } from "./host-memory.ts";

/** Loading takes more than what is loaded: folded copies of one tensor at a time. */
const loadingShare = 1.2;

interface ModelNeed {
  parameters: number;
  /** Bytes that one loaded copy takes. */
  bytes: number;
}

/** What the weights of a model take once they are loaded: 4 bytes a parameter, 2 in float16 on a GPU. */
async function modelNeed(model: ModelFolder, dtype: Dtype, onGpu: boolean): Promise<ModelNeed> {
  const parameters = await parametersOf(model);
  return { parameters, bytes: parameters * (dtype === "float16" && onGpu ? 2 : loadingShare * 4) };
}

async function parametersOf({ manifest, weightBytes, weights, config }: ModelFolder): Promise<number> {
  // Another exporter's weights may be of any form: mostly two bytes a parameter.
  if (manifest?.weight_files.every((name) => name.endsWith(".safetensors")) === false) return weightBytes / 2;
  return elementsOf(await weights(), config.indexerLayers);
}

/**
 * Refuses a model whose weights alone are more than the device has free.
 * @param device `auto` has room where the CPU or a GPU has
 * @param limits what the process may have, if not what is free; and what a layer at a time would take, if that is more
 * @throws RuntimeFailure with what it takes, what is free and what can be done instead
 */
export async function requireRoom(
  model: ModelFolder,
  device: Device,
  dtype: Dtype,
  { memory, least }: { memory?: number; least?: number } = {},
): Promise<void> {
  const host = memory ?? availableMemory();
  const cpu = await modelNeed(model, dtype, false);
  if (least === undefined && (device === "cpu" || device === "auto") && cpu.bytes <= host) return;
  const gpus = device === "cpu" ? [] : await queryGpus();
  // A device of which nothing is known is asked when it is opened.
  if (device !== "cpu" && device !== "auto" && gpus.length === 0) return;
  const gpu = device === "auto" ? gpus[0] : gpus[cudaIndex(device) ?? 0];
  const there = await modelNeed(model, dtype, true);
  if (gpu !== undefined && (gpu.memoryTotal === 0 || there.bytes <= gpu.memoryFree)) return;
  const free = [
    ...(gpu === undefined
      ? []
      : [`the GPU has ${formatBytes(gpu.memoryFree)} of ${formatBytes(gpu.memoryTotal)} free`]),
    ...(device === "cpu" || device === "auto" ? [`this process may have ${formatBytes(host)} of memory`] : []),
  ];
  const need = gpu === undefined ? cpu : there;
  const how = gpu === undefined || dtype === "float32" ? "float32" : dtype;
  const config = quoteWord(join(model.path, "config.json"));
  const parameters = `loading its ${formatMagnitude(need.parameters)} parameters takes about ${formatBytes(need.bytes)} in ${how}`;
  const inTurn =
    least === undefined ? [] : [`losses take about ${formatBytes(least)} even with a layer loaded at a time`];
  throw new RuntimeFailure(
    `Model "${model.config.name}" does not fit: ${[parameters, ...inTurn].join(", ")}; ${free.join(" and ")}`,
    {
      hint: `it takes a machine with more memory. Here you can time a smaller model of these shapes (indexcache bench --config ${config} --random-weights --layers 4 --experts 8), and give a published pattern to serving engines (indexcache pattern --help)`,
    },
  );
}

/** Whether the first GPU has room for the weights. */
export async function hasRoomOnGpu(model: ModelFolder, dtype: Dtype): Promise<boolean> {
  const [gpu] = await queryGpus();
  const { bytes } = await modelNeed(model, dtype, true);
  return gpu !== undefined && (gpu.memoryTotal === 0 || bytes <= gpu.memoryFree);
}
