/** `indexcache-distilled.json`: where a checkpoint with trained indexers comes from. Written by `distill`, shown by `inspect`. */
import { join } from "node:path";
import { z } from "zod";
import { letters } from "./pattern-file.ts";
import { readTextIfPresent } from "./text-file.ts";
import { parseJson } from "./validation.ts";

export const distilledManifestName = "indexcache-distilled.json";

const count = z.int().min(0);
const hash = z.string().regex(/^[0-9a-f]{64}$/);

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
  text: z.object({ source: z.string(), hash, sequences: count, length: count, held_out_sequences: count }),
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
