/** Which sequences a distillation trains on, and which decide what it keeps. */
import { InputError, UsageError } from "../../base/errors.ts";
import type { CalibrationSet } from "../../calibration/calibration-set.ts";
import { chooseWindows } from "../../calibration/windows.ts";
import type { Recipe } from "../../distill/recipe.ts";

/** Batches of held-out text, unless --holdout says otherwise: more decide no better which step is best. */
const usualHeldOutBatches = 4;

/**
 * The last sequences of the set are held out: neighbours of the same document stay on one side. Of the others no more are
 * kept than the steps can use, since all of them go through the whole model.
 */
export function splitText(set: CalibrationSet, { steps, batch, seed }: Recipe, holdout: string | undefined) {
  const count = heldOutCount(set.windows.length, batch, holdout);
  const training = set.windows.slice(0, set.windows.length - count);
  if (training.length < batch) {
    throw new InputError(
      `The text has ${set.windows.length} sequences of ${set.sequenceLength} tokens: too few for a batch of ${batch} and ${count} held out`,
      { hint: "give more text, or a smaller --batch" },
    );
  }
  return {
    training: chooseWindows(training, steps * batch, seed),
    heldOut: set.windows.slice(set.windows.length - count),
  };
}

/** Whole batches, one at least. */
export function heldOutCount(sequences: number, batch: number, holdout: string | undefined): number {
  const share = parseShare(holdout ?? "1/16");
  if (share === 0) return 0;
  const batches = Math.max(1, Math.round((sequences * share) / batch));
  return batch * (holdout === undefined ? Math.min(usualHeldOutBatches, batches) : batches);
}

function parseShare(text: string): number {
  const [above = "", below = "1", more] = text.split("/");
  const value = Number(above) / Number(below);
  if (more !== undefined || above.trim() === "" || !(value >= 0 && value < 1)) {
    throw new UsageError(`--holdout is ${text}: it must be a share such as 1/16 or 0.1, or 0`);
  }
  return value;
}
