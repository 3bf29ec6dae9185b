/** From flags to what the work needs: the model, its pattern, its calibration set. */

import { realpath } from "node:fs/promises";
import { join } from "node:path";
import { InputError, UsageError } from "../../base/errors.ts";
import { counted } from "../../base/quantities.ts";
import { isThere, readUserFile, readUserFileIfPresent } from "../../base/user-files.ts";
import { toolVersion } from "../../base/version.ts";
import { type CalibrationSet, loadCalibrationSet } from "../../calibration/calibration-set.ts";
import { type ChatMessage, Tokenizer } from "../../checkpoint/tokenizer/tokenizer.ts";
import { elementsOf } from "../../checkpoint/weights.ts";
import { requireSameModel } from "../../formats/pattern-file.ts";
import type { ModelIdentityRecord } from "../../formats/pattern-schema.ts";
import { isPublished, requireSameShape } from "../../formats/published-pattern.ts";
import type { ModelDescription, ModelFolder } from "../../graph/model-folder.ts";
import { fullLayers, looksLikeLetters, type Pattern } from "../../pattern/pattern.ts";
import { looksLikePattern, resolvePattern } from "../../pattern/schedule.ts";
import { formatCount } from "../../report/quantities.ts";
import { type CheckSettings, type ChosenDevice, chooseDevice, chooseDevices } from "../../runtime/device/device.ts";
import type { Work } from "../../runtime/device/device-work.ts";
import type { LossPlace } from "../../runtime/loss/loss-evaluator.ts";
import type { ComputeDevice } from "../../runtime/measurement.ts";
import { defaultThreads } from "../../runtime/session/onnx-session.ts";
import { runtimeName } from "../../runtime/session/runtime-name.ts";
import { recordedCommand } from "../console/interruption.ts";
import { PacedNotes } from "../console/patience.ts";
import type { Terminal } from "../console/terminal.ts";
import { patternOfSize } from "../pattern/pattern-of-size.ts";
import { readNamedPattern } from "../pattern/shelf.ts";
import {
  type DeviceFlags,
  type DtypeFlags,
  demoCalibration,
  demoCalibrationName,
  demoModel,
  type PatternFlags,
  type TextFlags,
  type WorkerFlags,
} from "./options.ts";

/** What files call the model. */
export async function identityRecord(model: ModelDescription): Promise<ModelIdentityRecord> {
  const { name, architecture, layers, indexTopk, configHash, weightHash } = await model.identity();
  const weights = weightHash === undefined ? {} : { weight_hash: weightHash };
  return { name, architecture, layers, index_topk: indexTopk, config_hash: configHash, ...weights };
}

/** The pattern of `--pattern`: text of the form of one, otherwise the path of a pattern file of this very model. */
export async function choosePattern(model: ModelDescription, { pattern, offset }: PatternFlags): Promise<Pattern> {
  const { numHiddenLayers: layers, indexerLayers: indexers } = model.config;
  const resolve = (text: string, where: string): Pattern => resolvePattern(text, { layers, indexers, offset }, where);
  // Mistyped letters are no file name: say what is wrong with them.
  const isMistyped = pattern.length > 1 && looksLikeLetters(pattern) && !(await isThere(pattern));
  if (looksLikePattern(pattern) || isMistyped) return resolve(pattern, "--pattern");
  const { path, retain, file } = await readNamedPattern(pattern);
  const identity = await identityRecord(model);
  if (isPublished(file)) requireSameShape(file, identity, path);
  else requireSameModel(file, identity, path);
  return resolve(patternOfSize(file, retain, path), `Pattern file "${path}"`);
}

/** Reads the calibration set, of `-c` or the package's own, and says what it is. The tokenizer is loaded at the first text, a set of ids needs none. */
export async function openCalibrationSet(
  model: ModelDescription,
  named: string | undefined,
  flags: TextFlags,
  terminal: Terminal,
): Promise<CalibrationSet> {
  let tokenizer: Promise<Tokenizer> | undefined;
  const load = (): Promise<Tokenizer> => {
    tokenizer ??= Tokenizer.load(model.path);
    return tokenizer;
  };
  const encode = async (text: string): Promise<number[]> => (await load()).encode(text);
  const encodeChat = async (messages: readonly ChatMessage[]): Promise<number[] | undefined> => {
    const loaded = await load();
    if (loaded.chatTemplate === undefined) return undefined;
    // A conversation has its answers: none is asked for.
    return loaded.encodeRendered(loaded.renderChat(messages, { variables: { add_generation_prompt: false } }));
  };
  const reading = new PacedNotes(terminal);
  const calibration = await requireCalibration(model.path, named, terminal);
  const { sequenceLength, sequences, textColumn, split, seed, pack } = flags;
  const set = await loadCalibrationSet(calibration, model.config, encode, {
    textColumn,
    split,
    encodeAll: async (texts) => (await load()).encodeAll(texts),
    encodeChat,
    onDocument: (documents, tokens) =>
      reading.note(() => `reading: ${counted(documents, "document")}, ${counted(tokens, "token")} so far`),
    seed,
    pack,
    signal: terminal.signal,
    sequenceLength,
    sequences,
  });
  (await tokenizer)?.dismiss();
  const source = calibration === demoCalibration ? demoCalibrationName : calibration;
  for (const note of set.notes) terminal.note(note);
  for (const warning of set.warnings) terminal.warn(warning);
  terminal.note(
    `calibration: ${set.windows.length} of ${counted(set.available, "sequence")} of ${formatCount(set.sequenceLength)} tokens from ${source}`,
  );
  return { ...set, source };
}

/**
 * The text that losses are measured on: what was given, or the package's set for the package's model and for models made
 * of it (exported, quantised, distilled), which are known by its tokenizer.
 * @throws UsageError for any other model without a set of its own: on a strange text and vocabulary losses mean nothing
 */
async function requireCalibration(model: string, given: string | undefined, terminal: Terminal): Promise<string> {
  if (given !== undefined) return given;
  // By whatever way it is named: a link, a relative path.
  if ((await realpath(model)) === (await realpath(demoModel))) return demoCalibration;
  if (await hasTokenizerOf(demoModel, model)) {
    terminal.warn(
      `without -c, losses are measured on the demo model's own text: "${model}" has the demo model's tokenizer; give -c if it is meant for other text`,
    );
    return demoCalibration;
  }
  throw new UsageError(`-c is missing: "${model}" has no calibration set of its own, only the demo model has one`, {
    hint: "give text that the model is used for, such as -c text.jsonl; some hundred thousand tokens are plenty",
  });
}

/** Whether two folders hold the same tokenizer, to the byte. */
async function hasTokenizerOf(known: string, model: string): Promise<boolean> {
  const name = "tokenizer.json";
  const path = join(model, name);
  const theirs = await readUserFileIfPresent(path, `Tokenizer "${path}"`);
  return theirs?.equals(await readUserFile(join(known, name), `Tokenizer of "${known}"`)) ?? false;
}

/** What a command computes with a model, by which `auto` decides; its amount may take a while to find out. */
export interface ModelWork {
  model: ModelFolder;
  amount: () => Amount | Promise<Amount>;
}

/** How `auto` decides, and who hears of it. */
export interface Choosing {
  work?: ModelWork;
  onTrial?: CheckSettings["onTrial"];
}

type Amount = Pick<Work, "passed"> & Partial<Pick<Work, "decoded" | "sideBySide">>;

async function workOf({ model, amount }: ModelWork): Promise<Work> {
  const { indexerLayers, numHiddenLayers: layers } = model.config;
  const { passed, decoded = 0, sideBySide = 1 } = await amount();
  return { parameters: elementsOf(await model.weights(), indexerLayers), layers, passed, decoded, sideBySide };
}

/**
 * The device to compute on, and the settings that sessions take.
 * @param choosing its work is not asked about in float16, which a CPU has in losses alone, and slowly
 */
export async function openDevice(
  { device: wanted, dtype, threads }: DeviceFlags & Partial<DtypeFlags>,
  terminal: Terminal,
  { work, onTrial }: Choosing = {},
): Promise<{ device: ComputeDevice; threads?: number }> {
  const own: { threads?: number } =
    threads === undefined ? {} : { threads: limitToCores("--threads", threads, terminal) };
  const decides = work !== undefined && wanted === "auto" && dtype !== "float16";
  const chosen = await chooseDevice(wanted, { ...own, work: decides ? () => workOf(work) : undefined, onTrial });
  announce(chosen, terminal);
  return { device: chosen.device, ...own };
}

/** Begins to open a device that is asked for by name, which takes a while, for whoever awaits it later. */
export function beginToOpen(flags: DeviceFlags & Partial<DtypeFlags>, terminal: Terminal) {
  if (flags.device === "auto") return undefined;
  const opening = openDevice(flags, terminal);
  // What else is wrong may be told first.
  opening.catch(() => undefined);
  return opening;
}

/** As `openDevice`, for work that several processes and devices can share. */
export async function openDevices(
  flags: DeviceFlags & WorkerFlags & Partial<DtypeFlags>,
  terminal: Terminal,
  choosing?: Choosing,
): Promise<LossPlace & { threads?: number }> {
  const { devices: wanted, threads, workers } = flags;
  if (wanted === undefined) {
    const place = await openDevice(flags, terminal, choosing);
    if (workers === undefined) return place;
    return { ...place, workers: place.device === "cpu" ? limitToCores("--workers", workers, terminal) : workers };
  }
  const own = threads === undefined ? {} : { threads: limitToCores("--threads", threads, terminal) };
  const chosen = await chooseDevices(wanted, own);
  for (const device of chosen) announce(device, terminal);
  return { devices: chosen.map(({ device }) => device), ...own };
}

/** More threads or processes than cores wait for each other: 999 threads on two cores came to no result in minutes. */
function limitToCores(option: string, asked: number, terminal: Terminal): number {
  const cores = defaultThreads();
  if (asked <= cores) return asked;
  terminal.warn(`${option} is ${asked}, and this machine has ${counted(cores, "core")}: ${cores} are used`);
  return cores;
}

/** What results say about where they were computed. */
export function placeName(place: LossPlace): string {
  return "devices" in place ? place.devices.join() : place.device;
}

/** Is no GPU among its devices? */
export function runsOnCpu(place: LossPlace): boolean {
  return ("devices" in place ? place.devices : [place.device]).every((device) => device === "cpu");
}

/** What results say of the tool that computed them. */
export function toolRecord(device: string, dtype: string) {
  return { version: toolVersion, runtime: runtimeName, device, dtype, command: recordedCommand(process.argv) };
}

/** @throws InputError for more Full layers than the model has indexers */
export function requireIndexers(sizes: readonly number[], indexerLayers: Pattern): void {
  const indexers = fullLayers(indexerLayers).length;
  const tooMany = sizes.find((full) => full > indexers);
  if (tooMany === undefined) return;
  throw new InputError(
    `--retain asks for ${counted(tooMany, "Full layer")}; ${indexers} layers of the model own an indexer`,
  );
}

function announce({ title, notes, note, warning }: ChosenDevice, terminal: Terminal): void {
  if (note !== undefined) terminal.note(note);
  for (const note of notes) terminal.detail(note);
  if (warning !== undefined) terminal.warn(warning);
  terminal.detail(`device: ${title}`);
}
