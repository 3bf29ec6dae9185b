/**
 * The latency file: what `bench --latency FILE` writes, so that a search can speak of speed. It has the cost of a Full
 * and of a Shared layer at some lengths of the context, on one machine. docs/bench-format.md explains it.
 */
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import type { LayerCosts } from "../pattern/latency.ts";
import { benchMachine, benchModel } from "./bench-file.ts";
import { positive, seconds, toolIdentity } from "./fields.ts";
import { readText } from "./text-file.ts";
import { parseJson } from "./validation.ts";

/** Readers refuse any other number; it goes up when an old reader would misunderstand a new file. */
const LATENCY_SCHEMA_VERSION = 1;

export const latencyPhases = ["prefill", "decode"] as const;
export type LatencyPhase = (typeof latencyPhases)[number];

const latencyFileSchema = z
  .object({
    kind: z.literal("indexcache-latency"),
    schema_version: z.literal(LATENCY_SCHEMA_VERSION),
    model: benchModel,
    machine: benchMachine,
    costs: z
      .array(
        z.object({
          phase: z.enum(latencyPhases).describe("prefill of the whole context, or one decoded token after it"),
          context: positive,
          other_seconds: seconds.describe("embedding and head"),
          full_layer_seconds: seconds,
          shared_layer_seconds: seconds,
        }),
      )
      .min(1),
    tool: toolIdentity,
  })
  .meta({ title: "IndexCache latency file" });

export type LatencyFile = z.infer<typeof latencyFileSchema>;

/** @throws InputError naming the file and the field */
export async function readLatencyFile(path: string): Promise<LatencyFile> {
  const text = await readText(path, `latency file "${path}"`, { hint: "indexcache bench --latency FILE writes one" });
  return parseJson(text, latencyFileSchema, `Latency file "${path}"`, "docs/bench-format.md describes the file");
}

export function formatLatencyFile(file: LatencyFile): string {
  return `${JSON.stringify(latencyFileSchema.parse(file), null, 2)}\n`;
}

/**
 * The costs at one context.
 * @throws InputError that lists the contexts that the file has
 */
export function costsAt(file: LatencyFile, phase: LatencyPhase, context: number, path: string): LayerCosts {
  const found = file.costs.find((entry) => entry.phase === phase && entry.context === context);
  if (found === undefined) {
    const known = file.costs.filter((entry) => entry.phase === phase).map((entry) => entry.context);
    throw new InputError(
      `Latency file "${path}" has no ${phase} at ${context} tokens; it has ${known.join(", ") || "none at all"}`,
    );
  }
  return layerCosts(found);
}

/** Costs as `predictLatency` takes them. */
export function layerCosts(
  record: Record<"other_seconds" | "full_layer_seconds" | "shared_layer_seconds", number>,
): LayerCosts {
  return {
    otherSeconds: record.other_seconds,
    fullLayerSeconds: record.full_layer_seconds,
    sharedLayerSeconds: record.shared_layer_seconds,
  };
}
