/** What a person sees while a search runs: lines here, a live view in the `tui` room; both follow the same states. */
import type { SearchEvent, SearchStep } from "../../search/events.ts";
import type { SearchProgress } from "../../search/progress.ts";
import { PacedLines } from "../paced-lines.ts";
import { counted, formatCount, formatDuration, formatLoss, formatLossChange } from "../quantities.ts";

export interface SearchDisplay {
  /** After each event of the search. */
  show(event: SearchEvent, progress: SearchProgress): void;
  /** Every second or so: time has passed. */
  tick(progress: SearchProgress): void;
  close(): void;
}

/** Layers that are named one by one. */
const LISTED_LAYERS = 6;

/** One line for each committed step, and one whenever nothing was said for a while. */
export class PlainDisplay implements SearchDisplay {
  readonly #lines: PacedLines;

  constructor(write: (line: string) => void) {
    this.#lines = new PacedLines(write);
  }

  show(event: SearchEvent, progress: SearchProgress): void {
    const { done, total, isExact, replayed } = progress.patterns;
    const say = (line: string): void => this.#lines.say(progress.elapsedSeconds, line);
    switch (event.kind) {
      case "plan":
        say(
          `${event.strategy}: ${counted(event.foreseen.steps, "step")}, ${isExact ? "" : "about "}${counted(total, "pattern")} from ${event.start}`,
        );
        break;
      case "step committed":
        say(
          `step ${event.step} of ${event.steps}: ${describeStep(event)}, loss ${formatLoss(event.evaluation.loss)}` +
            `${change(event.evaluation.loss, progress)}, ${event.pattern}, ${describePosition(progress)}`,
        );
        break;
      case "evaluation done":
        if (event.step === 0) {
          say(`baseline: loss ${formatLoss(event.evaluation.loss)}, ${describePosition(progress)}`);
        } else this.tick(progress);
        break;
      case "done":
        break;
      case "found":
        say(
          `${counted(done, "pattern")} in ${formatDuration(progress.elapsedSeconds)}${replayed > 0 ? `, ${replayed} from the journal` : ""}`,
        );
        break;
      case "evaluation started":
        this.tick(progress);
    }
  }

  tick(progress: SearchProgress): void {
    const { best, step, steps } = progress;
    const soFar = best === undefined ? "" : `, best so far ${describeLayers(best.flipped)} at ${formatLoss(best.loss)}`;
    this.#lines.sayIfSilent(
      progress.elapsedSeconds,
      () => `step ${step} of ${steps}${soFar}, ${describePosition(progress)}`,
    );
  }

  close(): void {}
}

/** Patterns and time: `45 of about 103 patterns, about 1 min 10 s left`. */
function describePosition({ patterns, etaSeconds }: SearchProgress): string {
  const isLast = patterns.done >= patterns.total;
  const left = isLast || etaSeconds === undefined ? "" : `, about ${formatDuration(etaSeconds)} left`;
  return `${describePatterns(patterns)}${left}`;
}

/** `45 of about 103 patterns`; `103 patterns` if no more is foreseen: it is over, or continues as long as it finds something. */
export function describePatterns({ done, total, isExact }: SearchProgress["patterns"]): string {
  if (done >= total) return counted(done, "pattern");
  return `${formatCount(done)} of ${isExact ? "" : "about "}${counted(total, "pattern")}`;
}

/** `layer 5`, `layers 2 and 7`; of more only the first ones by number. */
export function describeLayers(layers: readonly number[]): string {
  if (layers.length === 1) return `layer ${layers[0]}`;
  if (layers.length === 2) return `layers ${layers.join(" and ")}`;
  return layers.length <= LISTED_LAYERS
    ? `layers ${layers.join(", ")}`
    : `${layers.length} layers from ${layers[0]} up`;
}

/** What became of the layers that a step flipped. */
function describeStep({ pattern, flipped }: SearchStep): string {
  return (["S", "F"] as const)
    .flatMap((letter) => {
      const layers = flipped.filter((one) => pattern[one] === letter);
      if (layers.length === 0) return [];
      return [`${describeLayers(layers)} ${layers.length === 1 ? "is" : "are"} ${letter === "S" ? "Shared" : "Full"}`];
    })
    .join(", ");
}

function change(loss: number, { baselineLoss }: SearchProgress): string {
  return baselineLoss === undefined ? "" : ` (${formatLossChange(loss - baselineLoss)})`;
}
