/** Reads the fixtures that transformers made; test/fixtures/README.md describes the fields. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { type Pattern, parsePattern } from "../src/pattern/pattern.ts";

const pattern = z.string().transform((text): Pattern => parsePattern(text));

const runSchema = z.object({
  pattern,
  sequence: z.number(),
  mean_nll: z.number(),
  logits: z.object({ file: z.string(), offset: z.number(), shape: z.tuple([z.number(), z.number()]) }),
  boundary_rows: z.array(z.number()),
  boundaries: z.array(z.array(z.array(z.number()))),
  indexers: z.array(
    z.object({
      layer: z.number(),
      top_k: z.array(z.array(z.number())),
      scores: z.array(z.array(z.number())).optional(),
    }),
  ),
});

const lossSchema = z.object({ pattern, mean_nll: z.array(z.number()), loss: z.number() });

const oracleSchema = z.object({
  format: z.literal(1),
  fixture: z.string(),
  vocabulary_size: z.number(),
  index_topk: z.number(),
  native_pattern: pattern,
  indexers_present: pattern,
  sequences: z.array(z.array(z.number())),
  runs: z.array(runSchema),
  runs_ties_to_lowest_index: z.array(runSchema).optional(),
  losses: z.array(lossSchema),
  losses_ties_to_lowest_index: z.array(lossSchema).optional(),
  greedy_search: z
    .object({
      start: pattern,
      start_loss: z.number(),
      steps: z.array(
        z.object({
          flipped: z.number(),
          pattern,
          loss: z.number(),
          candidates: z.array(z.object({ layer: z.number(), loss: z.number() })),
        }),
      ),
    })
    .optional(),
  generations: z.array(z.object({ pattern, prompt: z.array(z.number()), tokens: z.array(z.number()) })),
});

export type Oracle = z.infer<typeof oracleSchema>;

/** Fixtures in which no row is near a tie: everything must agree to rounding. */
export const untiedFixtures = [
  "glm-groups",
  "glm-shared",
  "glm-freq",
  "glm-pattern",
  "v32-yarn",
  "v32-fp8",
  "axk2-light",
  "axk2-groups",
] as const;

export function fixturePath(name: string): string {
  return fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url));
}

export function readOracle(name: string): Oracle {
  return oracleSchema.parse(JSON.parse(readFileSync(`${fixturePath(name)}/oracle.json`, "utf8")));
}

/** Logits `[T, vocabulary]` of a run. */
export function oracleLogits(name: string, run: Oracle["runs"][number]): Float32Array {
  const bytes = readFileSync(`${fixturePath(name)}/${run.logits.file}`);
  const all = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const [rows, width] = run.logits.shape;
  return all.subarray(run.logits.offset, run.logits.offset + rows * width);
}

/** Largest absolute difference. */
export function largestDifference(left: ArrayLike<number>, right: ArrayLike<number>): number {
  if (left.length !== right.length) return Number.POSITIVE_INFINITY;
  let largest = 0;
  for (let i = 0; i < left.length; i++) largest = Math.max(largest, Math.abs((left[i] ?? NaN) - (right[i] ?? NaN)));
  return largest;
}
