/** What a distillation leaves behind while it runs, how it ends, and what its result loses on held-out text. */
import { clocks } from "../../base/clock.ts";
import { InputError, RuntimeFailure } from "../../base/errors.ts";
import { quoteWord } from "../../base/shell.ts";
import { elementsOf } from "../../checkpoint/weights.ts";
import type { DistilledOrigin } from "../../distill/distilled-files.ts";
import type { DistillEvent, Measured } from "../../distill/group-training.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { DistillProgress, type DistillState } from "../../report/distill/distill-progress.ts";
import { formatBytes } from "../../report/quantities.ts";
import { openLossEvaluator } from "../../runtime/loss/loss-evaluator.ts";
import type { ComputeDevice, Measurement } from "../../runtime/measurement.ts";
import type { IndexerParameters } from "../../runtime/training/gradient-session.ts";
import { resumeCommand, withResume } from "../console/interruption.ts";
import type { Terminal } from "../console/terminal.ts";
import { freeMemory } from "./distill-needs.ts";

/** What the events of a distillation leave on disk. */
export class DistillRun {
  readonly trained = new Map<number, IndexerParameters>();
  /** By layer: the step whose indexer was kept. */
  readonly kept = new Map<number, number>();
  readonly #groups = new Map<number, number>();
  readonly #measured = new Map<number, Measured[]>();
  readonly #progress: DistillProgress;
  readonly #terminal: Terminal;

  /** @param steps of a group */
  constructor(steps: number, terminal: Terminal) {
    this.#progress = new DistillProgress(steps, clocks.wall);
    this.#terminal = terminal;
  }

  get state(): DistillState {
    return this.#progress.state;
  }

  take(event: DistillEvent): void {
    this.#progress.take(event);
    const { full } = event.group;
    if (event.type === "measured") this.#measured.set(full, [...(this.#measured.get(full) ?? []), event.measured]);
    if (event.type === "diverged") {
      this.#terminal.warn(
        `layer ${full}: the training diverged at a rate of ${event.rate}; it was ended at step ${event.step}, and the indexer of step ${event.kept} is kept`,
      );
    }
    if (event.type !== "trained") return;
    for (const [layer, parameters] of event.parameters) {
      this.trained.set(layer, parameters);
      this.kept.set(layer, event.step);
      this.#groups.set(layer, full);
    }
  }

  carried(layer: number, done: number, total: number): void {
    this.#progress.carry(layer, done, total);
  }

  groupOf(layer: number): number {
    return this.#groups.get(layer) ?? layer;
  }

  measured(layer: number): Measured[] {
    return this.#measured.get(this.groupOf(layer)) ?? [];
  }
}

export function measuredByLayer(
  layers: readonly number[],
  of: (layer: number) => Measured[],
): DistilledOrigin["measured"] {
  return Object.fromEntries(
    layers.map((layer) => [
      layer,
      of(layer).map(({ step, missed, divergence }) => ({
        step,
        missed: missed.get(layer) ?? 0,
        divergence: divergence.get(layer) ?? 0,
      })),
    ]),
  );
}

/** What is left of a run that was stopped, or could not go on, and how it is taken up again. */
export function explainEnd(error: unknown, work: string | undefined): unknown {
  if (work === undefined) return error;
  if (!(error instanceof RuntimeFailure)) return withResume(error, "what was trained so far", work);
  const kept = `the last good state is kept in "${work}"`;
  return new RuntimeFailure(error.message, {
    hint: error.hint === undefined ? kept : `${error.hint}; ${kept}`,
    cause: error,
  });
}

/** Everything is trained and the result could not be written. */
export function explainUnwritten(error: unknown, work: string | undefined): unknown {
  if (work !== undefined && error instanceof InputError) {
    // Such as a folder that another process has filled since it was looked at.
    return new InputError(error.message, {
      hint: `everything is trained, and kept: with another -o, or once that is mended, give --work ${quoteWord(work)} --resume`,
      cause: error,
    });
  }
  if (!(error instanceof RuntimeFailure) || work === undefined) return explainEnd(error, work);
  return new RuntimeFailure(error.message, {
    hint: `everything is trained; with room for the result, write it with: ${resumeCommand(process.argv)}`,
    cause: error,
  });
}

/** Losses of the model's own pattern and of the trained one, sequence by sequence. */
export async function heldOutLosses(
  model: ModelFolder,
  windows: readonly Int32Array[],
  pattern: Pattern | "any",
  { device, threads }: { device: ComputeDevice; threads: number },
  signal: AbortSignal,
  terminal: Terminal,
): Promise<{ own: Measurement; chosen: Measurement | undefined } | undefined> {
  if (windows.length === 0) return undefined;
  const elements = elementsOf(await model.weights(), model.config.indexerLayers);
  const free = await freeMemory(device);
  if (free !== null && 4 * elements > free) {
    terminal.warn(
      `the whole model takes ${formatBytes(4 * elements)} in float32 and ${device} has ${formatBytes(free)} free: its loss on held-out text is not measured`,
    );
    return undefined;
  }
  const evaluator = await openLossEvaluator(model, windows, { device, threads, workers: 1, dtype: "float32" });
  try {
    // What the source calls Full: the new config makes the pattern the model's own.
    const own = await evaluator.evaluate(model.config.indexerLayers, { signal });
    const chosen = pattern === "any" ? undefined : await evaluator.evaluate(pattern, { signal });
    return { own, chosen };
  } finally {
    await evaluator.release();
  }
}
