/** What a distillation comes to: loss of the pattern before and after, on held-out text, paired sequence by sequence. */
import { type Change, lossChange } from "../../analyze/loss-change.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { Measurement } from "../../runtime/measurement.ts";
import { counted, formatError, formatLoss, formatLossChange } from "../quantities.ts";
import { formatFields, formatTable, left, right } from "../text-table.ts";

export interface HeldOutLosses {
  /** Of the model's own pattern. */
  own: Measurement;
  /** Of the pattern that is trained for. */
  chosen: Measurement | undefined;
}

export interface DistillRecord {
  checkpoint: string;
  pattern: Pattern | "any";
  steps: number;
  /** By layer: the step whose indexer was kept. */
  kept_steps: Record<string, number>;
  held_out_sequences: number;
  /** Nats per token. */
  losses?: { own: number; before: number | undefined; after: number } | undefined;
  /** Loss above the model's own pattern, as it was before the training. */
  before?: { mean: number; standard_error: number | null } | undefined;
  after?: { mean: number; standard_error: number | null } | undefined;
  /** What the training changed: after less before. */
  change?: { mean: number; standard_error: number | null } | undefined;
}

export function distillRecord({
  target,
  pattern,
  steps,
  before,
  after,
  best,
}: {
  target: string;
  pattern: Pattern | "any";
  steps: number;
  before: HeldOutLosses | undefined;
  after: HeldOutLosses | undefined;
  best: ReadonlyMap<number, number>;
}): DistillRecord {
  const record: DistillRecord = {
    checkpoint: target,
    pattern,
    steps,
    kept_steps: Object.fromEntries(best),
    held_out_sequences: before?.own.sequences.length ?? 0,
  };
  if (before === undefined || after === undefined) return record;
  const trained = after.chosen ?? after.own;
  const untrained = before.chosen;
  return {
    ...record,
    losses: { own: before.own.loss, before: untrained?.loss, after: trained.loss },
    before: untrained && estimate(lossChange(untrained, before.own)),
    change: untrained && estimate(lossChange(trained, untrained)),
    after: estimate(lossChange(trained, before.own)),
  };

  function estimate({ change, standardError }: Change): { mean: number; standard_error: number | null } {
    return { mean: change, standard_error: record.held_out_sequences < 2 ? null : standardError };
  }
}

/** @param width that no line may exceed where words allow it; undefined is a file or pipe */
export function formatDistillReport(record: DistillRecord, width: number | undefined): string {
  const { checkpoint, pattern, losses, before, after, held_out_sequences: count } = record;
  const fields = formatFields(
    [
      ["Checkpoint", checkpoint],
      ["Pattern", pattern === "any" ? "any" : pattern],
      ["Held out", count === 0 ? "nothing: whether quality holds is not known" : counted(count, "sequence")],
    ],
    width,
  );
  if (losses === undefined || after === undefined) return fields;
  const measured = [
    { what: "model's own pattern, untrained", loss: losses.own, change: undefined },
    ...(before === undefined || losses.before === undefined
      ? []
      : [{ what: "pattern, untrained", loss: losses.before, change: before }]),
    {
      what: pattern === "any" ? "model's own pattern, trained" : "pattern, trained",
      loss: losses.after,
      change: after,
    },
  ];
  const table = formatTable(measured, [
    left("Held-out loss", ({ what }) => what),
    right("Loss", ({ loss }) => formatLoss(loss)),
    right("Change", ({ change }) => (change === undefined ? "" : formatLossChange(change.mean))),
    right("+-", ({ change }) => (change === undefined ? "" : formatError(change.standard_error))),
  ]);
  return `${fields}\n\n${table}`;
}
