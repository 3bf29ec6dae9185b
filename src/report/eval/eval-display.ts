/** What a person sees while an evaluation runs: lines here, a live view in the `tui` room. */
import { cellText } from "../../base/quoted.ts";
import type { EvalProgress } from "../../eval/run/progress.ts";
import { PacedLines } from "../paced-lines.ts";
import { counted, formatCount, formatDuration, formatScore } from "../quantities.ts";

export interface EvalDisplay {
  /** After each item, and every second or so. */
  show(progress: EvalProgress): void;
  close(progress: EvalProgress): void;
}

export class PlainEvalDisplay implements EvalDisplay {
  readonly #lines: PacedLines;

  constructor(write: (line: string) => void) {
    this.#lines = new PacedLines(write, undefined, Number.NEGATIVE_INFINITY);
  }

  show(progress: EvalProgress): void {
    if (progress.items.done === 0) return;
    this.#lines.sayIfSilent(progress.elapsedSeconds, () => `${describeItems(progress)}; ${describeScores(progress)}`);
  }

  close({ items: { done, replayed }, elapsedSeconds }: EvalProgress): void {
    const from = replayed === 0 ? "" : `, ${formatCount(replayed)} from the journal`;
    this.#lines.say(elapsedSeconds, `${counted(done, "item")} in ${formatDuration(elapsedSeconds)}${from}`);
  }
}

/** `45 of 600 items (vt at 1024), about 3 min 05 s left`. */
export function describeItems({ items, task, length, etaSeconds }: EvalProgress): string {
  const { done, total } = items;
  const of = total === undefined ? "" : ` of ${formatCount(total)}`;
  const at = task === undefined ? "" : ` (${cellText(task)}${length === undefined ? "" : ` at ${length}`})`;
  const left = etaSeconds === undefined || done === total ? "" : `, about ${formatDuration(etaSeconds)} left`;
  return `${formatCount(done)}${of} items${at}${left}`;
}

/** `full 81.2, quarter.json 79.9`: means over the items so far. */
function describeScores({ arms, scores }: EvalProgress): string {
  return arms.map((name, arm) => `${cellText(name)} ${formatScore(scores[arm])}`).join(", ");
}
