/** Lines that show how a distillation goes: a few for each group of layers, with the time that is left. */
import { performance } from "node:perf_hooks";
import type { DistillEvent } from "../../distill/distillation.ts";
import { formatDuration } from "../quantities.ts";

/** Milliseconds between two lines of the same group. */
const QUIET_MS = 10_000;

export class DistillProgress {
  readonly #steps: number;
  readonly #say: (line: string) => void;
  #groups = 0;
  #index = 0;
  #began = performance.now();
  /** Steps of this process; a run that is taken up again has done others before. */
  #done = 0;
  #told = performance.now();

  constructor(steps: number, say: (line: string) => void) {
    this.#steps = steps;
    this.#say = say;
  }

  show(event: DistillEvent): void {
    if (event.type === "group") {
      this.#groups = event.groups;
      this.#index = event.index;
      const { layers, full } = event.group;
      const last = layers.at(-1);
      const range = last === full ? `layer ${full}` : `layers ${full} to ${last}`;
      this.#say(`group ${event.index + 1} of ${event.groups}: ${range}`);
    } else if (event.type === "measured") {
      const { step, missed } = event.measured;
      const shares = [...missed.values()];
      const mean = shares.reduce((sum, value) => sum + value, 0) / shares.length;
      const star = event.best ? "  best so far" : "";
      this.#say(`  step ${step}: held-out attention missed ${(100 * mean).toFixed(2)}%${star}`);
    } else if (event.type === "step") {
      if (this.#done++ === 0) this.#began = performance.now();
      const now = performance.now();
      if (now - this.#told < QUIET_MS) return;
      this.#told = now;
      const { step, losses } = event.done;
      const all = [...losses.values()];
      const mean = all.reduce((sum, value) => sum + value, 0) / all.length;
      this.#say(`  step ${step + 1} of ${this.#steps}  KL ${mean.toFixed(4)}${this.#left(step)}`);
    }
  }

  /** A layer has taken so many sequences from one boundary to the next. */
  carried(layer: number, done: number, total: number): void {
    const now = performance.now();
    if (now - this.#told < QUIET_MS || done === total) return;
    this.#told = now;
    this.#say(`  hidden states: layer ${layer}, ${done} of ${total} sequences`);
  }

  #left(step: number): string {
    if (this.#done < 3) return "";
    const perStep = (performance.now() - this.#began) / (this.#done - 1);
    const open = this.#steps - step - 1 + (this.#groups - this.#index - 1) * this.#steps;
    return `  about ${formatDuration((open * perStep) / 1000)} left`;
  }
}
