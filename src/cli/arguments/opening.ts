/** Opens MODEL for commands that compute with it: what cannot be loaded is refused before anything long begins. */
import { InputError } from "../../base/errors.ts";
import { findModel } from "../../checkpoint/hub-cache.ts";
import { Tokenizer } from "../../checkpoint/tokenizer/tokenizer.ts";
import { requireFiniteWeights } from "../../checkpoint/weight-findings.ts";
import { type ModelFolder, openModel, verifyWeights } from "../../graph/model-folder.ts";
import { requireRoom } from "../../runtime/device/model-memory.ts";
import type { Device, DeviceList, Dtype } from "../../runtime/measurement.ts";
import { ByteCount } from "../console/patience.ts";
import type { Terminal } from "../console/terminal.ts";
import { type Flags, group, option } from "./declared-option.ts";

/** Of commands that compute with MODEL. */
export const modelOptions = group(
  "Model:",
  option("--no-verify", "take an exported model's weights on trust instead of comparing their hashes once"),
);

export type VerifyFlags = Flags<typeof modelOptions>;

export interface ModelToRun extends ModelFolder {
  /**
   * Reads all weights, once a model: minutes of a large one. After all that can be refused without them, before any of them
   * is computed with.
   * @throws InputError where one is not finite, or the weights are not those that were exported
   */
  checkWeights(): Promise<void>;
}

interface OpeningFlags extends VerifyFlags {
  device: Device;
  devices?: DeviceList;
  dtype?: Dtype;
  /** Of a command that need not load the whole model: looks for room in its own way, once the model is open. */
  lookForRoom?: (model: ModelFolder) => Promise<void>;
}

/**
 * Opens a folder, or `owner/name` of the Hugging Face cache; its weights are still to be checked.
 * @throws InputError where it is no model, or one that ONNX Runtime refuses to load
 * @throws RuntimeFailure where there is no memory for it
 */
export async function openModelToRun(
  text: string,
  { verify, device, devices, dtype = "float32", lookForRoom }: OpeningFlags,
  terminal: Terminal,
): Promise<ModelToRun> {
  const model = await openModel(await findModel(text));
  requireSingleNames(model);
  for (const note of model.notes) terminal.warn(note);
  if (lookForRoom === undefined) {
    await requireRoom(model, Array.isArray(devices) ? (devices[0] ?? device) : device, dtype);
  } else await lookForRoom(model);
  tellOwnPattern(model, terminal);
  const reading = (what: string) => {
    const progress = new ByteCount(terminal, what);
    return { signal: terminal.signal, onBytes: (bytes: number) => progress.add(bytes, model.weightBytes) };
  };
  let identity: ReturnType<ModelFolder["identity"]> | undefined;
  return {
    ...model,
    // Results name the model by its hashes: a large checkpoint is read once, also for the check, and that shows.
    identity() {
      identity ??= model.identity({ ...reading("hashing and checking weights"), checks: true });
      return identity;
    },
    async checkWeights() {
      // An export has looked at them already, and so has who asked for the identity.
      if (model.manifest === undefined) {
        if (identity !== undefined) await identity;
        else await requireFiniteWeights(await model.weights(), reading("checking weights"));
      } else if (verify) await verifyWeights(model, reading("checking weights"));
    },
  };
}

function requireSingleNames({ path, places }: ModelFolder): void {
  for (const [name, { hardLinks }] of places.files) {
    if (hardLinks < 2) continue;
    throw new InputError(
      `"${path}": ${name} is a file with ${hardLinks} names (hard links), and ONNX Runtime refuses to read weights from such a file`,
      { hint: "make a copy of it: cp -rL copies the folder, and indexcache export -o writes one that runs" },
    );
  }
}

function tellOwnPattern({ config, leftoverIndexers }: ModelFolder, terminal: Terminal): void {
  if (leftoverIndexers.length > 0) {
    terminal.note(
      `note: the checkpoint holds indexers for ${listLayers(leftoverIndexers)}, which config.json makes Shared: they are not used, as in transformers`,
    );
  }
  if (config.modelType === "deepseek_v32" && config.indexerLayers.includes("S")) {
    terminal.note(
      "note: the pattern in config.json is followed, as serving engines do; transformers runs every indexer of a deepseek_v32 model",
    );
  }
}

/** `layer 3`, `layers 3, 4 and 5`, or the number of them where there are many. */
function listLayers(layers: readonly number[]): string {
  if (layers.length > 12) return `${layers.length} layers`;
  if (layers.length === 1) return `layer ${layers[0]}`;
  return `layers ${layers.slice(0, -1).join(", ")} and ${layers.at(-1)}`;
}

/** The model's tokenizer; undefined where it has none, with a warning that says what happens then. */
export async function openTokenizer(
  model: ModelFolder,
  terminal: Terminal,
  without: string,
): Promise<Tokenizer | undefined> {
  try {
    return await Tokenizer.load(model.path);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    terminal.warn(`${error.message}: ${without}`);
    return undefined;
  }
}
