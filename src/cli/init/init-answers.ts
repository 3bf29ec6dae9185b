/** The five answers that `init` needs, each checked against the real thing as soon as it is given. */

import { UsageError } from "../../base/errors.ts";
import { counted } from "../../base/quantities.ts";
import { quoted } from "../../base/quoted.ts";
import { findModel } from "../../checkpoint/hub-cache.ts";
import { type EngineName, engineNames } from "../../engines/engines.ts";
import { describeModel, type ModelDescription } from "../../graph/model-folder.ts";
import { parseServers } from "../../live/server-address.ts";
import { fullLayers } from "../../pattern/pattern.ts";
import { formatCount } from "../../report/quantities.ts";
import { parseDevice } from "../../runtime/session/execution-provider.ts";
import { parseTargets } from "../../search/retain.ts";
import { openCalibrationSet } from "../arguments/inputs.ts";
import { demoModel } from "../arguments/options.ts";
import { Terminal } from "../console/terminal.ts";

/** Answers as they are written down; undefined is the program's own default. */
export interface Answers {
  model: string | undefined;
  place: { device: string } | { server: string };
  calibration: string | undefined;
  retain: string;
  engine: EngineName | undefined;
}

/** What an answer is worth: the value, and a word on what was found. */
export interface Checked<T> {
  value: T;
  found: string;
}

/** The name under which the demo model is chosen. */
export const DEMO = "demo";

export async function checkModel(text: string): Promise<Checked<ModelDescription>> {
  const model = await describeModel(await findModel(text === DEMO ? demoModel : text));
  const { numHiddenLayers: layers, indexerLayers, indexTopk, modelType } = model.config;
  return {
    value: model,
    found: `${modelType}, ${layers} layers, ${fullLayers(indexerLayers).length} of them with an indexer, index_topk ${formatCount(indexTopk)}`,
  };
}

/** @param text a device, or addresses of running engines */
export function checkPlace(text: string): Checked<Answers["place"]> {
  if (/^https?:/i.test(text)) {
    const servers = parseServers(text, true);
    return { value: { server: text }, found: `${counted(servers.length, "server")}` };
  }
  if (parseDevice(text) === undefined) {
    throw new UsageError(`${quoted(text)} is no device and no address`, {
      hint: "auto, cpu, webgpu, cuda, cuda:N, or http://127.0.0.1:8000 of a running vLLM or SGLang",
    });
  }
  return { value: { device: text }, found: text === "auto" ? "the fastest device that works here" : text };
}

/** Reads and tokenizes the text, as a search will. */
export async function checkText(
  text: string | undefined,
  model: ModelDescription,
  signal: AbortSignal,
): Promise<Checked<string | undefined>> {
  const set = await openCalibrationSet(model, text, { seed: 0, pack: true }, new Terminal({ quiet: true }, signal));
  const few = set.windows.length < 8 ? ": few to search by, eight or more are better" : "";
  return {
    value: text,
    found: `${counted(set.windows.length, "sequence")} of ${formatCount(set.sequenceLength)} tokens${few}`,
  };
}

export function checkRetain(text: string, { config }: ModelDescription): Checked<number[]> {
  const { numHiddenLayers: layers, indexerLayers } = config;
  const most = fullLayers(indexerLayers).length;
  const targets = parseTargets(text, layers, { fewest: 1, most });
  const tooMany = targets.find((full) => full > most);
  if (tooMany !== undefined) {
    throw new UsageError(`${quoted(text)} asks for ${tooMany} Full layers, and ${most} have an indexer`);
  }
  return { value: targets, found: `${targets.join(", ")} of ${layers} layers stay Full` };
}

export function checkEngine(text: string): Checked<EngineName | undefined> {
  if (text === "none") return { value: undefined, found: "the pattern alone" };
  const engine = engineNames.find((name) => name === text);
  if (engine === undefined) {
    throw new UsageError(`${quoted(text)} is no engine that is known here`, {
      hint: `none, ${engineNames.join(", ")}`,
    });
  }
  return { value: engine, found: `indexcache pattern --for ${engine}` };
}
