/** `indexcache-distilled.json`: where a checkpoint with trained indexers comes from. Written by `distill`, shown by `inspect`. */
import { join } from "node:path";
import { z } from "zod";
import { count, hash, letters, sketchSchema } from "./fields.ts";
import { readTextIfPresent } from "./text-file.ts";
import { parseJson } from "./validation.ts";

export const distilledManifestName = "indexcache-distilled.json";

/** Runs of tokens that are kept of a text: training takes millions of tokens, of which a pattern file's sketch would say little. */
export const TRAINING_RUNS = 65_536;

/** Text that indexers were trained on; `eval` refuses items that have its runs of tokens. */
const textIdentity = z.object({ source: z.string(), hash, ngrams: sketchSchema(TRAINING_RUNS).optional() });

const manifestSchema = z.object({
  kind: z.literal("indexcache-distilled"),
  format: z.literal(1),
  made_from: z.object({ name: z.string(), config_hash: hash, weight_hash: hash }),
  /** The pattern that was trained for: F/S letters, or any. */
  pattern: z.union([z.literal("any"), letters]),
  recipe: z.looseObject({
    steps: count,
    rate: z.number(),
    batch: count,
    targets: z.enum(["centroid", "own"]),
    weight: z.enum(["values", "mass"]),
    seed: count,
  }),
  text: textIdentity.extend({ sequences: count, length: count, held_out_sequences: count }),
  /** Other text that the model's indexers had been trained on before, first to last. */
  earlier_texts: z.array(textIdentity).optional(),
  /** By trained layer: the step whose indexer was kept. */
  kept_steps: z.record(z.string().regex(/^\d+$/), count),
  /** Held-out measurements, by trained layer: step, missed attention (share), KL (nats). */
  measured: z.record(
    z.string().regex(/^\d+$/),
    z.array(z.object({ step: count, missed: z.number(), divergence: z.number() })),
  ),
  tool: z.object({ version: z.string(), command: z.string() }),
});

export type DistilledManifest = z.infer<typeof manifestSchema>;

export type TrainingText = z.infer<typeof textIdentity>;

/** Every text that the indexers of a checkpoint were trained on, each once, first to last. */
export function trainingTexts(manifest: DistilledManifest | undefined): TrainingText[] {
  if (manifest === undefined) return [];
  const { source, hash: own, ngrams } = manifest.text;
  const last = { source, hash: own, ngrams };
  return [...(manifest.earlier_texts ?? []).filter((text) => text.hash !== own), last];
}

/**
 * @returns undefined for a folder without one
 * @throws InputError naming the field that is not as it should be
 */
export async function readDistilledManifest(folder: string): Promise<DistilledManifest | undefined> {
  const path = join(folder, distilledManifestName);
  const text = await readTextIfPresent(path, `"${path}"`);
  return text === undefined ? undefined : parseJson(text, manifestSchema, `"${path}"`);
}

export function formatDistilledManifest(manifest: DistilledManifest): string {
  return `${JSON.stringify(manifest, null, 2)}\n`;
}
