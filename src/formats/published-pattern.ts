/**
 * The other kind of pattern file: a pattern that somebody has published, with where it comes from and how sure that is.
 * There are no hashes in it, so a reader can compare only the architecture and the number of layers with a model.
 */
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { countFull, type Pattern, parsePattern, requireLayers } from "../pattern/pattern.ts";
import { letters, positive } from "./fields.ts";
import { type CheckedPatternFile, parsePatternFile, readPatternText } from "./pattern-file.ts";
import { type ModelIdentityRecord, PATTERN_SCHEMA_VERSION, patternFileSchema } from "./pattern-schema.ts";
import { parseJson } from "./validation.ts";

const source = z.object({
  title: z.string(),
  url: z.url(),
  evidence: z
    .enum(["primary", "secondary"])
    .describe("primary: published by the authors or by an engine; secondary: quoted by somebody else"),
});

const publishedPatternSchema = z
  .object({
    schema_version: z.literal(PATTERN_SCHEMA_VERSION),
    index_topk_pattern: letters.describe("verbatim"),
    published: z.object({
      name: z.string().describe("the model and the share of Full layers that the publishers say"),
      architecture: z.string().describe("model_type of config.json"),
      layers: positive.describe("backbone layers; prediction layers (MTP) are not counted"),
      full_layers: positive.describe("how many letters are F"),
      searched_on: z.string().describe("the model whose loss chose the layers"),
      tier: z
        .enum(["vendor", "borrowed"])
        .optional()
        .describe("what stands behind it: vendor: those who made the model; borrowed: it is of another model"),
      trained: z
        .boolean()
        .optional()
        .describe("the weights were trained with it: no other pattern fits them, nor it other weights"),
      certainty: z
        .enum(["certain", "probable", "misattributed"])
        .describe("certain: a primary source has it; probable: only secondary ones; misattributed: not of this model"),
      sources: z.array(source).min(1),
      remarks: z.array(z.string()),
    }),
  })
  .meta({ title: "IndexCache pattern file of a published pattern" });

export type PublishedPattern = z.infer<typeof publishedPatternSchema>;
export type CheckedPublishedPattern = PublishedPattern & { index_topk_pattern: Pattern };
export type AnyPatternFile = CheckedPatternFile | CheckedPublishedPattern;

/** The JSON Schema that `docs/pattern.schema.json` holds. Unknown fields are allowed: newer files may add some. */
export function patternJsonSchema(): string {
  const either = z.union([patternFileSchema, publishedPatternSchema]).meta({ title: "IndexCache pattern file" });
  return `${JSON.stringify(z.toJSONSchema(either, { io: "input" }), null, 2)}\n`;
}

export function isPublished(file: AnyPatternFile): file is CheckedPublishedPattern {
  return "published" in file;
}

/** What stands behind a pattern: a measurement by this tool on the model itself, those who made the model, or neither. */
export type EvidenceTier = "measured" | "vendor" | "borrowed";

/** @returns borrowed for a published pattern that does not say who stands behind it */
export function evidenceTier(file: AnyPatternFile): EvidenceTier {
  return isPublished(file) ? (file.published.tier ?? "borrowed") : "measured";
}

/** Reads a pattern file of either kind. */
export async function readAnyPatternFile(path: string): Promise<AnyPatternFile> {
  return parseAnyPatternFile(await readPatternText(path), path);
}

/**
 * As `readAnyPatternFile`, for a text that was read from `path`.
 * @throws InputError naming the file and the field
 */
export function parseAnyPatternFile(text: string, path: string): AnyPatternFile {
  const what = `Pattern file "${path}"`;
  const value = parseJson(text, z.unknown(), what, "docs/pattern-format.md describes the file");
  if (typeof value !== "object" || value === null || !("published" in value)) return parsePatternFile(text, path);
  const file = parseJson(text, publishedPatternSchema, what, "docs/pattern-format.md describes the file");
  const pattern = requireLayers(parsePattern(file.index_topk_pattern, what), file.published.layers, what);
  const full = countFull(pattern);
  if (full !== file.published.full_layers) {
    throw new InputError(
      `${what}: "published.full_layers" is ${file.published.full_layers}, the letters have ${full} F`,
    );
  }
  if (file.published.certainty === "misattributed" && file.published.tier === "vendor") {
    throw new InputError(
      `${what}: "published.tier" is vendor, and "published.certainty" says that it is of another model`,
    );
  }
  return { ...file, index_topk_pattern: pattern };
}

/** Refuses a published pattern for a model of another architecture or number of layers; hashes it has none. */
export function requireSameShape({ published }: PublishedPattern, model: ModelIdentityRecord, path: string): void {
  if (published.architecture === model.architecture && published.layers === model.layers) return;
  throw new InputError(
    `Pattern file "${path}" is of ${published.name} (${published.architecture}, ${published.layers} layers), "${model.name}" is ${model.architecture} with ${model.layers} layers`,
  );
}
