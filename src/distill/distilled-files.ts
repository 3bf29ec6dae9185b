/** The small files of a distilled checkpoint: its config.json, and where it comes from. */
import { join } from "node:path";
import { toolVersion } from "../base/version.ts";
import { patchConfig } from "../engines/config-patch.ts";
import { indexerTypes } from "../engines/index-fields.ts";
import { readText } from "../formats/text-file.ts";
import type { ModelIdentity } from "../graph/model-folder.ts";
import type { TargetWeight } from "../graph/training/attention-target.ts";
import type { Pattern } from "../pattern/pattern.ts";
import type { Recipe } from "./recipe.ts";

export const distilledManifestName = "indexcache-distilled.json";

/** config.json with the pattern as every engine reads it; as it was where any pattern was trained for. */
export async function distilledConfig(folder: string, pattern: Pattern | "any"): Promise<string> {
  const path = join(folder, "config.json");
  const text = await readText(path, `"${path}"`);
  if (pattern === "any") return text;
  return patchConfig(text, {
    use_index_cache: true,
    index_topk_pattern: pattern,
    indexer_types: indexerTypes(pattern),
  });
}

export interface DistilledOrigin {
  model: ModelIdentity;
  pattern: Pattern | "any";
  recipe: Recipe;
  weight: TargetWeight;
  text: { source: string; hash: string; sequences: number; length: number };
  /** By layer: the step whose indexer was kept. */
  best: ReadonlyMap<number, number>;
  command: string;
}

export function distilledManifest(origin: DistilledOrigin): { name: string; content: string } {
  const { model, pattern, recipe, weight, text, best, command } = origin;
  const record = {
    kind: "indexcache-distilled",
    format: 1,
    made_from: { name: model.name, config_hash: model.configHash, weight_hash: model.weightHash },
    pattern,
    recipe: { ...recipe, weight },
    text,
    kept_steps: Object.fromEntries(best),
    tool: { version: toolVersion, command },
  };
  return { name: distilledManifestName, content: `${JSON.stringify(record, null, 2)}\n` };
}
