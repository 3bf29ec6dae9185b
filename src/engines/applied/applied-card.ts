/** The model card (README.md) of a checkpoint with a pattern: what it is, where it comes from, what it loses. */
import { counted, formatBytes } from "../../base/quantities.ts";
import { escapeControls } from "../../base/quoted.ts";
import { toolVersion } from "../../base/version.ts";
import type { EngineShape } from "../../checkpoint/derived/engine-shape.ts";
import type { AnyPatternFile } from "../../formats/published-pattern.ts";
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import type { ServedModel } from "../served-model.ts";
import { cardTable, modelCard } from "./model-card.ts";

/** What is known of a pattern that is applied. */
export interface Origin {
  /** The pattern file that it came from. */
  file?: AnyPatternFile;
  /** It is the original's own pattern. */
  isOwn?: boolean;
  /** What speaks against it, as far as it is known. */
  warnings: readonly string[];
}

export interface CardFacts {
  model: ServedModel;
  pattern: Pattern;
  origin: Origin;
  leftOut: { tensors: number; bytes: number };
  /** Indexer tensors that came back from the original. */
  restored: number;
  /** The shape that attention and indexers were padded to. */
  shape: EngineShape | undefined;
  /** The card of the checkpoint that this one is made from. */
  previous: string | undefined;
}

/** The text of README.md: the previous card's metadata and text stay, below what is new. */
export function formatCard({ model, pattern, origin, leftOut, restored, shape, previous }: CardFacts): string {
  const full = fullLayers(pattern).length;
  const lines = [
    `# ${escapeControls(model.name)} with ${full} of ${pattern.length} lightning indexers`,
    "",
    ...(full === pattern.length
      ? [`Made by indexcache ${toolVersion} (\`pattern apply\`). Every layer runs its own indexer.`]
      : [
          `Made by indexcache ${toolVersion} (\`pattern apply\`). Every layer computes what it did, but ${pattern.length - full} layers reuse the`,
          "`topk_indices` of the nearest Full layer before them (IndexCache, arXiv 2603.12201). config.json says which",
          "(`indexer_types`, `index_topk_pattern`), so that engines need no flags.",
        ]),
    "",
    ...(shape === undefined
      ? []
      : [
          `Attention and indexers are padded to the shape that the kernels of serving engines take: ${shape.heads} heads and`,
          `${shape.indexHeads} index heads, of which the model uses its own. Copies and zeros fill the rest: it is the same`,
          "function, for tests of engines, and of no use where a native checkpoint runs.",
          "",
        ]),
    "```",
    pattern,
    "```",
    "",
    ...cardTable([
      ["Made from", `${escapeControls(model.name)} (${model.modelType}, ${model.layers} layers)`],
      [
        "Left out",
        leftOut.tensors === 0
          ? "nothing"
          : `${counted(leftOut.tensors, "indexer tensor")} of Shared layers, ${formatBytes(leftOut.bytes)}`,
      ],
      ...(restored === 0
        ? []
        : [["Taken back", `${counted(restored, "indexer tensor")}, from the original checkpoint`] as const]),
      ...losses(pattern, origin),
    ]),
    ...origin.warnings.map((warning) => `\n> **Note**: ${escapeControls(warning)}`),
    ...(model.modelType === "deepseek_v32"
      ? [
          "\n> **transformers** ignores sharing for DeepSeek-V3.2 and would give the missing indexers random weights: serve this checkpoint with an engine that shares (vLLM, SGLang).",
        ]
      : []),
    "",
    shape === undefined
      ? "The way back needs the original: `indexcache pattern apply THIS --restore ORIGINAL -o FOLDER`."
      : "There is no way back from the padded shape: take the original.",
  ];
  return modelCard(lines, previous);
}

/** What the search measured, where the pattern comes from one. */
function losses(pattern: Pattern, { file, isOwn }: Origin): (readonly [string, string])[] {
  if (file === undefined) {
    return isOwn ? [] : [["Losses", "not known: the letters were given without a pattern file"]];
  }
  if ("published" in file) {
    const { name, certainty, searched_on: searchedOn, sources } = file.published;
    return [
      ["Pattern", `${escapeControls(name)}, searched on ${escapeControls(searchedOn)} (${certainty})`],
      ...sources.map(({ title, url }) => ["Source", `[${escapeControls(title)}](${url})`] as const),
    ];
  }
  const found = measuredLoss(pattern, file);
  const { model, calibration, search, tool } = file;
  return [
    ["Loss before", `${file.baseline_loss.toFixed(5)} nats a token, the model's own pattern`],
    [
      "Loss with this pattern",
      found === undefined ? "not in the file" : `${found.toFixed(5)} (${signed(found - file.baseline_loss)})`,
    ],
    [
      "Measured on",
      `${counted(calibration.sequences, "sequence")}, ${counted(calibration.tokens, "token")} of ${escapeControls(calibration.source)}`,
    ],
    [
      "Search",
      `${escapeControls(search.strategy)}, ${counted(search.evaluations, "pattern")}, indexcache ${escapeControls(tool.version)} on ${escapeControls(tool.device)}`,
    ],
    [
      "Searched on",
      `${escapeControls(model.name)}, config ${model.config_hash.slice(0, 12)}, weights ${model.weight_hash?.slice(0, 12) ?? "those of a server"} (SHA-256)`,
    ],
  ];
}

/** The loss that a file of a search has for these letters, measured on all sequences. */
function measuredLoss(pattern: Pattern, file: Exclude<AnyPatternFile, { published: unknown }>): number | undefined {
  const known = [
    { index_topk_pattern: file.index_topk_pattern, loss: file.loss, sequences: undefined },
    ...(file.patterns ?? []).map((found) => ({ ...found, sequences: undefined })),
    ...file.trajectory,
    ...(file.search.frontier ?? []),
  ];
  return known.find(({ index_topk_pattern: letters, sequences }) => letters === pattern && sequences === undefined)
    ?.loss;
}

function signed(nats: number): string {
  return `${nats < 0 ? "" : "+"}${nats.toFixed(5)}`;
}
