/** What `inspect` prints. */
import type { DsaConfig } from "../checkpoint/config/model-config.ts";
import type { DistilledManifest } from "../formats/distilled-manifest.ts";
import type { Inspection } from "../graph/exported/inspect.ts";
import { countFull } from "../pattern/pattern.ts";
import type { WeightNeeds } from "../runtime/loss/weight-needs.ts";
import { formatBytes, formatCount, formatMagnitude } from "./quantities.ts";
import { type Field, formatFields } from "./text-table.ts";

/** Of a model without weights. */
interface ConfigInspection
  extends Pick<Inspection, "name" | "architecture" | "layers" | "indexerLayers" | "indexTopk" | "parameters"> {
  losses: WeightNeeds;
}

export function describeConfig(config: DsaConfig): Omit<ConfigInspection, "parameters" | "losses"> {
  const { name, modelType, numHiddenLayers, indexerLayers, indexTopk } = config;
  return { name, architecture: modelType, layers: numHiddenLayers, indexerLayers, indexTopk };
}

export function formatConfigInspection(model: ConfigInspection, known: readonly string[], columns?: number): string {
  return formatFields(
    [
      ...modelFields(model, "config.json alone", known),
      ["Indexer", `selects ${formatCount(model.indexTopk)} tokens`],
      ["Weights", `${formatBytes(model.losses.stored)}, estimated: ${storedWords}`],
      ["Loaded", `${formatBytes(model.losses.loaded)} (fp32, experts twice)`],
      ...lossFields(model.losses),
    ],
    columns,
  );
}

const storedWords = "FP8 matrices where config.json says so, else BF16";

/** @param known patterns of the package for this model; `indexcache pattern --list` says more of them */
function modelFields(model: Omit<ConfigInspection, "losses">, kind: string, known: readonly string[]): Field[] {
  const full = countFull(model.indexerLayers);
  return [
    ["Model", `${model.name} (${model.architecture}, ${kind})`],
    ["Parameters", `${formatMagnitude(model.parameters)} (${formatCount(model.parameters)})`],
    ["Layers", `${model.layers}, of which ${full} run an indexer`],
    ["Own pattern", full === model.layers ? "every layer Full" : model.indexerLayers],
    ["Known patterns", known.length > 0 && known.join(", ")],
  ];
}

/** What `loss` and `search` need. */
function lossFields({ largestLayer, whole, least }: WeightNeeds): Field[] {
  return [
    ["Largest layer", `${formatBytes(largestLayer.stored)} stored, ${formatBytes(largestLayer.loaded)} loaded`],
    [
      "Losses need",
      `${formatBytes(whole)} on a CPU${least < whole ? `, ${formatBytes(least)} a layer at a time (--memory)` : ""}`,
    ],
  ];
}

export function formatInspection(
  model: Inspection & { losses: WeightNeeds | undefined; knownPatterns: readonly string[] },
  columns?: number,
): string {
  const { experts, cacheBytesPerToken, weightBytes } = model;
  return formatFields(
    [
      ...modelFields(model, model.kind, model.knownPatterns),
      [
        "Not used",
        model.leftoverIndexers.length > 0 &&
          `indexers of layers ${model.leftoverIndexers.join(", ")}, which config.json makes Shared`,
      ],
      [
        "Indexer",
        `${model.indexer.heads} heads of ${model.indexer.headDim}, selects ${formatCount(model.indexTopk)} tokens`,
      ],
      ["Attention", `${model.attention.heads} heads over latents of ${model.attention.latentWidth}`],
      [
        "Experts",
        experts.sparseLayers === 0
          ? "none"
          : `${experts.perToken} of ${experts.routed} a token and ${experts.shared} shared, in ${experts.sparseLayers} layers`,
      ],
      ["Hidden size", formatCount(model.hiddenSize)],
      ["Vocabulary", formatCount(model.vocabSize)],
      ["Window", `${formatCount(model.maxPositionEmbeddings)} tokens`],
      [
        "Weights",
        Object.entries(weightBytes)
          .map(([dtype, bytes]) => `${formatBytes(bytes)} ${dtype}`)
          .join(", "),
      ],
      ["Loaded", `${formatBytes(model.loadedBytes)} (fp32)`],
      ...(model.losses === undefined ? [] : lossFields(model.losses)),
      [
        "Cache a token",
        `${formatBytes(cacheBytesPerToken.full)} with every indexer, ${formatBytes(cacheBytesPerToken.shared)} with one`,
      ],
      ["Contract", model.contract],
      ["Distilled", model.distilled && describeOrigin(model.distilled)],
      ...model.notes.map((note): [string, string] => ["Note", note]),
    ],
    columns,
  );
}

function describeOrigin({ pattern, recipe, made_from: source }: DistilledManifest): string {
  const target = pattern === "any" ? "any pattern" : pattern;
  return `from ${source.name} (weights ${source.weight_hash.slice(0, 12)}) for ${target}, ${recipe.steps} steps`;
}
