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

export type DistillRecord = ReturnType<typeof distillRecord>;

/** What a distillation has written, and what it is worth. */
interface Distilled {
  checkpoint: string;
  pattern: Pattern | "any";
  steps: number;
  /** By layer: the step whose indexer was kept. */
  kept: ReadonlyMap<number, number>;
  before: HeldOutLosses | undefined;
  after: HeldOutLosses | undefined;
}

/** The `--json` form; losses in nats per token. */
export function distillRecord({ checkpoint, pattern, steps, kept, before, after }: Distilled) {
  const sequences = before?.own.sequences.length ?? 0;
  const estimate = ({ change, standardError }: Change) => ({
    mean: change,
    standard_error: sequences < 2 ? null : standardError,
  });
  const trained = after && (after.chosen ?? after.own);
  const untrained = before?.chosen;
  return {
    checkpoint,
    pattern,
    steps,
    kept_steps: Object.fromEntries(kept),
    held_out_sequences: sequences,
    losses: before && trained && { own: before.own.loss, before: untrained?.loss, after: trained.loss },
    /** Loss above the model's own pattern, as it was before the training. */
    before: before && trained && untrained && estimate(lossChange(untrained, before.own)),
    /** What the training changed: after less before. */
    change: trained && untrained && estimate(lossChange(trained, untrained)),
    after: before && trained && estimate(lossChange(trained, before.own)),
  };
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
