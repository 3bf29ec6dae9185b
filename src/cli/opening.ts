/** Opens MODEL for commands that compute with it: what cannot be loaded is refused before anything long begins. */
import { InputError } from "../base/errors.ts";
import { requireFiniteWeights } from "../checkpoint/finite-weights.ts";
import { findModel } from "../checkpoint/hub-cache.ts";
import { type ModelFolder, openModel } from "../graph/model-folder.ts";
import type { Terminal } from "./terminal.ts";

/**
 * Opens a folder, or `owner/name` of the Hugging Face cache.
 * @throws InputError where it is no model, or one that ONNX Runtime refuses to load
 */
export async function openModelToRun(text: string, terminal: Terminal): Promise<ModelFolder> {
  const model = await openModel(await findModel(text));
  requireSingleNames(model);
  for (const note of model.notes) terminal.warn(note);
  // An export has looked at them already.
  if (model.manifest === undefined) await requireFiniteWeights(await model.weights());
  const { leftoverIndexers } = await model.weights();
  if (leftoverIndexers.length > 0) {
    terminal.note(
      `note: the checkpoint holds indexers for ${listLayers(leftoverIndexers)}, which config.json makes Shared: they are not used, as in transformers`,
    );
  }
  if (model.config.modelType === "deepseek_v32" && model.config.indexerLayers.includes("S")) {
    terminal.note(
      "note: the pattern in config.json is followed, as serving engines do; transformers runs every indexer of a deepseek_v32 model",
    );
  }
  return model;
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

/** `layer 3`, `layers 3, 4 and 5`, or the number of them where there are many. */
function listLayers(layers: readonly number[]): string {
  if (layers.length > 12) return `${layers.length} layers`;
  if (layers.length === 1) return `layer ${layers[0]}`;
  return `layers ${layers.slice(0, -1).join(", ")} and ${layers.at(-1)}`;
}
