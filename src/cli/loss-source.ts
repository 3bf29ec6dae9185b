/** Where a command's losses come from: this tool's own runtime, or a server. */
import type { CalibrationSet } from "../calibration/calibration-set.ts";
import type { JournalFingerprint } from "../formats/journal.ts";
import type { PatternFile } from "../formats/pattern-schema.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import { type LossSettings, openLossEvaluator } from "../runtime/loss/loss-evaluator.ts";
import type { Objective, PatternEvaluator } from "../runtime/measurement.ts";
import { runtimeName } from "../runtime/session/runtime-name.ts";
import { placeName } from "./arguments/inputs.ts";
import type { Terminal } from "./console/terminal.ts";

export interface LossSource {
  /** What decides the numbers beside model and text, for journals. */
  numbers: JournalFingerprint["settings"];
  /** What results say about where they were computed. */
  tool: Pick<PatternFile["tool"], "runtime" | "device" | "dtype">;
  /** The server that measured; absent where this tool's runtime does. */
  server?(): PatternFile["server"];
  /** What one evaluation over all sequences takes, where that is the same for every pattern and known. */
  secondsEach?(): number | undefined;
  /** Whether divergences can be measured as well, after a search by another objective. */
  divergences: boolean;
  /** Opens an evaluator, and releases it whatever happens. */
  use<T>(objective: Objective, work: (evaluator: PatternEvaluator) => Promise<T>): Promise<T>;
}

export function localLosses(
  model: ModelFolder,
  set: CalibrationSet,
  settings: LossSettings & { dtype: string },
  terminal: Terminal,
): LossSource {
  return {
    numbers: { dtype: settings.dtype },
    tool: { runtime: runtimeName, device: placeName(settings), dtype: settings.dtype },
    divergences: true,
    async use(objective, work) {
      const evaluator = await openLossEvaluator(model, set.windows, {
        ...settings,
        objective,
        scoredFrom: set.scoredFrom,
        onReplacement: (words) => terminal.warn(words),
      });
      try {
        return await work(evaluator);
      } finally {
        await evaluator.release();
      }
    },
  };
}
