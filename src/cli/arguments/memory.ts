/** Where and how losses are computed, and whether a model is loaded whole for them or its layers in turn. */
import { InvalidArgumentError } from "commander";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { formatBytes } from "../../report/quantities.ts";
import { availableMemory } from "../../runtime/device/host-memory.ts";
import { hasRoomOnGpu, requireRoom } from "../../runtime/device/model-memory.ts";
import { leastBytes, partsRoom, sizesOf, wholeBytes } from "../../runtime/loss/weight-room.ts";
import type { Device } from "../../runtime/measurement.ts";
import type { Terminal } from "../console/terminal.ts";
import { type Flags, group, option } from "./declared-option.ts";
import { type ModelToRun, openModelToRun, type VerifyFlags } from "./opening.ts";
import { deviceOptions, dtypeOptions, workersOptions } from "./options.ts";

export const lossPlaceOptions = group(
  "Where it computes:",
  ...deviceOptions,
  ...dtypeOptions,
  ...workersOptions,
  option(
    "--memory <size>",
    "what weights and states may take on the CPU: 8GiB (default: what is free). A larger model's layers are loaded in turn, with the same losses; on a GPU, what states may take of the host's memory",
    byteSize,
  ),
);

export type LossPlaceFlags = VerifyFlags & Flags<typeof lossPlaceOptions>;

interface PlacedFlags extends LossPlaceFlags {
  sequenceLength?: number;
}

/**
 * Opens MODEL for losses, which need not have room for all of it.
 * @returns the model, and the device to compute on: the CPU where layers are loaded in turn
 * @throws as `openModelToRun` does
 */
export async function openModelForLosses(
  text: string,
  flags: PlacedFlags,
  terminal: Terminal,
): Promise<{ model: ModelToRun; device: Device }> {
  let { device } = flags;
  const lookForRoom = async (model: ModelFolder): Promise<void> => {
    device = await placeLosses(model, flags, terminal);
  };
  const model = await openModelToRun(text, { ...flags, lookForRoom }, terminal);
  return { model, device };
}

/** Any length of sequences, as long as it is not known. */
const someTokens = 1024;

async function placeLosses(
  model: ModelFolder,
  { device, devices, dtype, memory = availableMemory(), sequenceLength = someTokens }: PlacedFlags,
  terminal: Terminal,
): Promise<Device> {
  const onCpu = devices === undefined && (device === "cpu" || device === "auto") && dtype === "float32";
  const sizes = onCpu ? await sizesOf(model) : undefined;
  if (sizes === undefined) {
    await requireRoom(model, Array.isArray(devices) ? (devices[0] ?? device) : device, dtype);
    return device;
  }
  if (wholeBytes(sizes) <= memory || (device === "auto" && (await hasRoomOnGpu(model, dtype)))) return device;
  const parts = partsRoom(model.config, sizes, [sequenceLength], memory);
  if (parts === undefined) {
    const least = leastBytes(model.config, sizes, [sequenceLength]);
    await requireRoom(model, "cpu", dtype, { memory, least });
    return device;
  }
  const { staysFrom } = parts.room;
  const layers = model.config.numHiddenLayers;
  const stays = staysFrom === layers ? "none of them stays" : `${layers - staysFrom} of ${layers} stay`;
  terminal.note(
    `the model takes ${formatBytes(wholeBytes(sizes))} once loaded, and may have ${formatBytes(memory)}: its layers are loaded in turn (${stays} in memory)`,
  );
  return "cpu";
}

function byteSize(text: string): number {
  const form = /^(?<number>\d+(?:\.\d+)?)\s*(?<unit>[KMGT]i?B|B)?$/i.exec(text)?.groups;
  if (form === undefined) throw new InvalidArgumentError("It must be a size like 512MiB, 4GB or a number of bytes.");
  const unit = form.unit ?? "B";
  const power = "BKMGT".indexOf((unit[0] ?? "B").toUpperCase());
  return Math.floor(Number(form.number) * (/^.i/i.test(unit) ? 1024 : 1000) ** power);
}
