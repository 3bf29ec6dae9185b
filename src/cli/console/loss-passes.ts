/** The passes of `loss` over its sequences: what their time is of. */
import type { Pattern } from "../../pattern/pattern.ts";
import { joinMeasurements } from "../../runtime/loss/mean-loss.ts";
import type { Measurement, PatternEvaluator } from "../../runtime/measurement.ts";
import { Countdown } from "./patience.ts";
import type { Terminal } from "./terminal.ts";

/** A first pass on a device that took longer is not repeated as a whole: only its first block of sequences is. */
const repeatedSeconds = 20;

/** A block of sequences that takes less than this is too short to stop and tell after it. */
const blockSeconds = 0.5;

export interface PassSettings {
  /** Sequences in all. */
  count: number;
  /** What a device other than the CPU chooses and allocates in its first runs is no part of its speed. */
  warmsUp: boolean;
  /** A whole pass is recorded, after one that is not: called between them. */
  onWarm?: () => void;
  signal: AbortSignal;
  terminal: Pick<Terminal, "note">;
}

/** @returns the measurement, whose seconds are of warm runs, and the seconds of the runs that warmed up and are left out */
export async function measurePasses(
  evaluator: PatternEvaluator,
  pattern: Pattern,
  settings: PassSettings,
): Promise<{ measurement: Measurement; warmUpSeconds: number | undefined }> {
  const { warmsUp, onWarm, signal } = settings;
  const { measurement: cold, first } = await pass(evaluator, pattern, settings, false);
  onWarm?.();
  if (onWarm !== undefined || (warmsUp && cold.seconds < repeatedSeconds)) {
    const { measurement } = await pass(evaluator, pattern, settings, true);
    return { measurement, warmUpSeconds: cold.seconds };
  }
  if (!warmsUp) return { measurement: cold, warmUpSeconds: undefined };
  const sequences = [...first.sequences.keys()];
  const again = await evaluator.evaluate(pattern, { afresh: true, signal, sequences });
  requireWholePass(again);
  return {
    measurement: { ...cold, seconds: cold.seconds - first.seconds + again.seconds },
    warmUpSeconds: first.seconds,
  };
}

/** One pass over all sequences, reported as it goes. Nothing is shared between sequences: blocks change no loss. */
async function pass(
  evaluator: PatternEvaluator,
  pattern: Pattern,
  { count, signal, terminal }: PassSettings,
  afresh: boolean,
): Promise<{ measurement: Measurement; first: Measurement }> {
  const countdown = new Countdown(terminal, afresh ? "sequences once more, warm" : "sequences");
  const parts: Measurement[] = [];
  let block = evaluator.sideBySide;
  for (let done = 0; done < count; ) {
    const sequences = Array.from({ length: Math.min(block, count - done) }, (_, index) => done + index);
    const part = await evaluator.evaluate(pattern, { afresh, signal, sequences });
    parts.push(part);
    done += sequences.length;
    if (part.seconds < blockSeconds) block *= 2;
    countdown.tell(done, count);
  }
  const measurement = joinMeasurements(parts);
  requireWholePass(measurement);
  return { measurement, first: parts[0] as Measurement };
}

/** A time that memory has shortened would be told as the model's. */
function requireWholePass({ executions: { body, naiveBody } }: Measurement): void {
  if (body < naiveBody) throw new Error(`a pass of ${naiveBody} layers ran ${body}`);
}
