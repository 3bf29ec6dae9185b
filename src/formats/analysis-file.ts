/**
 * The analysis file: what `analyze -o FILE` writes and `report` reads. Matrices have one row for each layer (the one that
 * would share) and one column for each entry of `sources` (the one it would share from). docs/analysis-format.md explains it.
 */
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import {
  calibrationIdentity,
  count,
  error,
  letters,
  modelIdentity,
  nats,
  positive,
  seconds,
  toolIdentity,
} from "./fields.ts";
import { readText } from "./text-file.ts";
import { parseJson } from "./validation.ts";

/** Readers refuse any other number; it goes up when an old reader would misunderstand a new file. */
const ANALYSIS_SCHEMA_VERSION = 1;

/** `null` where a pair says nothing: a layer can share only from one before it. */
const matrix = z.array(z.array(z.number().nullable()));

const statistic = z.object({
  mean: matrix.describe("over all queries"),
  by_position: z
    .array(
      z.object({
        from: positive.describe("fewest visible keys of a query in the bucket"),
        to: positive.describe("most visible keys of one"),
        queries: count,
        mean: matrix,
      }),
    )
    .describe(
      "the same over queries that see from..to keys; each bucket ends at twice the one before, from 2 x index_topk on",
    ),
});

/** How a layer's selection compares, averaged over the Shared layers of a pattern and their sources. */
const localScores = z.object({ overlap: z.number(), recall: z.number(), similarity: z.number() });

const patternOrigins = ["model", "uniform", "overlap", "recall", "similarity", "searched"] as const;

const comparedPattern = z.object({
  origin: z
    .enum(patternOrigins)
    .describe("who made it; overlap, recall and similarity are exact optima of that statistic"),
  full_layers: positive,
  index_topk_pattern: letters,
  mean_of_shared_layers: localScores
    .nullable()
    .describe("of each Shared layer with its source; null for a pattern without Shared layers"),
  loss: nats,
  standard_error: error.describe("of loss, over sequences"),
  change: nats.describe("loss less that of the model's own pattern"),
  change_standard_error: error.describe("paired, over sequences"),
});

const flip = z.object({
  layer: positive.describe("made Shared, all others as in base"),
  loss: nats,
  change: nats.describe("loss less that of base"),
  change_standard_error: error.describe("paired, over sequences"),
});

const pair = z.object({
  layers: z.tuple([count, count]).describe("both made Shared, ascending"),
  loss: nats,
  change: nats.describe("loss less that of base"),
  interaction: nats.describe("change less the changes of the two single flips; 0 where flips add up"),
  interaction_standard_error: error.describe("paired, over sequences"),
});

const analysisFileSchema = z
  .object({
    kind: z.literal("indexcache-analysis"),
    schema_version: z.literal(ANALYSIS_SCHEMA_VERSION),
    model: modelIdentity,
    calibration: calibrationIdentity,
    index_topk_pattern: letters.describe("the pattern that ran: its hidden states are what indexers and attention saw"),
    sources: z.array(count).min(1).describe("layers that own an indexer, ascending: the columns of the matrices"),
    queries: count.describe("query positions that see at least index_topk keys, over all sequences"),
    overlap: statistic.describe("|Ti and Tj| / index_topk of the layer's own selection and the source's"),
    recall: statistic.describe("share of the layer's dense attention mass that the source's selection covers"),
    similarity: statistic.describe("cosine of the layer's attention outputs with its own selection and the source's"),
    patterns: z.array(comparedPattern).describe("the model's own pattern first"),
    sensitivity: z.object({ base: letters, base_loss: nats, flips: z.array(flip) }),
    pairs: z.array(pair).optional().describe("with --pairs"),
    seconds,
    tool: toolIdentity,
  })
  .meta({ title: "IndexCache analysis file" });

export type AnalysisFile = z.infer<typeof analysisFileSchema>;
export type Statistic = AnalysisFile["overlap"];
export type Matrix = Statistic["mean"];

/**
 * Reads an analysis file and checks that its matrices have its layers and sources.
 * @throws InputError naming the file and the field
 */
export async function readAnalysisFile(path: string): Promise<AnalysisFile> {
  const what = `Analysis file "${path}"`;
  const text = await readText(path, `analysis file "${path}"`, { hint: "indexcache analyze -o FILE writes one" });
  const file = parseJson(text, analysisFileSchema, what, "docs/analysis-format.md describes the file");
  requireShapes(file, what);
  return file;
}

/** The text of an analysis file, a matrix row a line. */
export function formatAnalysisFile(file: AnalysisFile): string {
  requireShapes(analysisFileSchema.parse(file), "Analysis file");
  return `${JSON.stringify(file, null, 2).replace(/\[\s+((?:(?:-?[\d.e+-]+|null),?\s+)+)\]/g, (_, items: string) => {
    return `[${items.trim().split(/,\s+/).join(", ")}]`;
  })}\n`;
}

function requireShapes({ model, sources, ...file }: AnalysisFile, what: string): void {
  for (const name of ["overlap", "recall", "similarity"] as const) {
    const { mean, by_position } = file[name];
    const matrices = new Map([
      ["mean", mean],
      ...by_position.map((bucket, i) => [`by_position[${i}].mean`, bucket.mean] as const),
    ]);
    for (const [field, rows] of matrices) {
      if (rows.length === model.layers && rows.every((row) => row.length === sources.length)) continue;
      throw new InputError(
        `${what}: "${name}.${field}" is not ${model.layers} rows (model.layers) of ${sources.length} numbers (sources)`,
      );
    }
  }
}
