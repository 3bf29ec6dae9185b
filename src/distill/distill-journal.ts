/** The journal of a distillation: which boundaries are complete, which groups are trained, and where the one at hand stands. */
import { z } from "zod";
import type { LogKind } from "../formats/append-log.ts";
import { count, hash, settings } from "../formats/fields.ts";

const fingerprintSchema = z.object({
  model_config_hash: z.string(),
  weight_hash: z.string(),
  text_hash: z.string(),
  held_out_hash: z.string(),
  pattern: z.string(),
  settings,
  tool_version: z.string(),
});

export type DistillFingerprint = z.infer<typeof fingerprintSchema>;

const entrySchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("boundary"), layer: count, sha256: hash }),
  z.object({ kind: z.literal("checkpoint"), group: count, step: count, sha256: hash }),
  z.object({
    kind: z.literal("measured"),
    group: count,
    step: count,
    missed: z.record(z.string(), z.number()),
    divergence: z.record(z.string(), z.number()),
  }),
  z.object({ kind: z.literal("trained"), group: count, step: count, sha256: hash }),
]);

export type DistillEntry = z.infer<typeof entrySchema>;

export const distillJournal: LogKind<DistillFingerprint, DistillEntry> = {
  kind: "indexcache-distill-journal",
  format: 1,
  fingerprint: fingerprintSchema,
  entry: entrySchema,
  compared: ({ settings, ...rest }) =>
    new Map([
      ["model configuration", rest.model_config_hash],
      ["weights", rest.weight_hash],
      ["text", rest.text_hash],
      ["held-out text", rest.held_out_hash],
      ["pattern", rest.pattern],
      ...Object.entries(settings).map(([name, value]) => [name, String(value)] as const),
      ["version of indexcache", rest.tool_version],
    ]),
};
