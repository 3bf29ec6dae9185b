/** The small files of a distilled checkpoint: config.json, the card, and the manifest that says where it comes from. */

import { join } from "node:path";
import { counted } from "../base/quantities.ts";
import { escapeControls } from "../base/quoted.ts";
import type { DerivedFile } from "../checkpoint/derived/derived-checkpoint.ts";
import { patchConfig } from "../engines/applied/config-patch.ts";
import { cardTable, modelCard } from "../engines/applied/model-card.ts";
import { sharingFields } from "../engines/index-fields.ts";
import {
  type DistilledManifest,
  distilledManifestName,
  formatDistilledManifest,
} from "../formats/distilled-manifest.ts";
import { readText, readTextIfPresent } from "../formats/text-file.ts";
import { fullLayers, type Pattern } from "../pattern/pattern.ts";

/** What a distilled checkpoint says of itself. */
export interface DistilledOrigin extends DistilledManifest {
  pattern: Pattern | "any";
}

/**
 * @param folder of the checkpoint that it is made from
 * @param dropped indexer tensors of Shared layers that are not in it
 */
export async function distilledFiles(
  folder: string,
  modelType: string,
  origin: DistilledOrigin,
  dropped: number,
): Promise<DerivedFile[]> {
  const previous = await readTextIfPresent(join(folder, "README.md"), `"${join(folder, "README.md")}"`);
  return [
    { name: "config.json", content: await distilledConfig(folder, origin.pattern) },
    { name: "README.md", content: modelCard(cardLines(modelType, origin, dropped), previous) },
    { name: distilledManifestName, content: formatDistilledManifest(origin) },
  ];
}

/** config.json with the pattern as every engine reads it; as it was where any pattern was trained for. */
async function distilledConfig(folder: string, pattern: Pattern | "any"): Promise<string> {
  const path = join(folder, "config.json");
  const text = await readText(path, `"${path}"`);
  return pattern === "any" ? text : patchConfig(text, sharingFields(pattern));
}

function cardLines(modelType: string, origin: DistilledOrigin, dropped: number): string[] {
  const { made_from: source, pattern, recipe, text, kept_steps: kept, measured, tool } = origin;
  const name = escapeControls(source.name);
  const steps = [...new Set(Object.values(kept))].sort((left, right) => left - right);
  const missed = Object.entries(measured).flatMap(([layer, all]) => {
    const [first] = all;
    const best = all.find(({ step }) => step === kept[layer]);
    return first === undefined || best === undefined ? [] : [[layer, first.missed, best.missed] as const];
  });
  const any = pattern === "any";
  return [
    any
      ? `# ${name} with distilled lightning indexers`
      : `# ${name} with ${fullLayers(pattern).length} of ${pattern.length} lightning indexers`,
    "",
    `Made by indexcache ${tool.version} (\`distill\`). ${
      any
        ? "Its indexers were trained for whatever pattern is searched next: each step drew one."
        : "Its Full layers' indexers were trained for all layers that read their `topk_indices` (IndexCache, arXiv 2603.12201, multi-layer distillation). config.json says which layers share (`indexer_types`, `index_topk_pattern`), so that engines need no flags."
    }`,
    "Every other tensor is the original's, byte for byte.",
    "",
    ...(any ? [] : ["```", pattern, "```", ""]),
    ...cardTable([
      [
        "Made from",
        `${name}, config ${source.config_hash.slice(0, 12)}, weights ${source.weight_hash.slice(0, 12)} (SHA-256)`,
      ],
      [
        "Training",
        `${recipe.steps} steps of ${recipe.batch} x ${text.length} tokens, rate ${recipe.rate}, ${recipe.targets === "own" ? "targets of the Full layer alone" : "targets of all layers served"}, keys by ${recipe.weight}`,
      ],
      [
        "Text",
        `${counted(text.sequences, "sequence")} of ${escapeControls(text.source)}, ${text.held_out_sequences} held out`,
      ],
      ["Kept", steps.length === 1 ? `step ${steps[0]}` : `steps ${steps.join(", ")} (by layer)`],
      ...(missed.length === 0
        ? []
        : [
            [
              "Missed attention",
              missed.map(([layer, from, to]) => `layer ${layer}: ${percent(from)} to ${percent(to)}`).join(", "),
            ] as const,
          ]),
      ["Left out", dropped === 0 ? "nothing" : `${dropped} indexer tensors of Shared layers`],
    ]),
    ...(modelType === "deepseek_v32" && !any
      ? [
          "",
          "> **transformers** ignores sharing for DeepSeek-V3.2 and runs every indexer: serve this checkpoint with an engine that shares (vLLM, SGLang).",
        ]
      : []),
  ];
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}
