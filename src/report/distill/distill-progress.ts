/** Lines that show how a distillation goes: a few for each group of layers, with the time that is left. */
import { performance } from "node:perf_hooks";
import type { DistillEvent } from "../../distill/distillation.ts";
import { formatDuration } from "../quantities.ts";

/** Milliseconds between two lines of the same group. */
const QUIET_MS = 10_000;

export class DistillProgress {
  readonly #steps: number;
  readonly #several: boolean;
  readonly #say: (line: string) => void;
  #groups = 0;
  /** Steps behind each group that has been begun, by its Full layer. */
  readonly #behind = new Map<number, number>();
  #began = performance.now();
  /** Steps of this process; a run that is taken up again has done others before. */
  #done = 0;
  #told = performance.now();

  /** @param several groups may be trained at the same time: lines name theirs */
  constructor(steps: number, several: boolean, say: (line: string) => void) {
    this.#steps = steps;
    this.#several = several;
    this.#say = say;
  }

  show(event: DistillEvent): void {
    const { layers, full } = event.group;
    const last = layers.at(-1);
    const range = last === full ? `layer ${full}` : `layers ${full} to ${last}`;
    const name = this.#several ? `  ${range}: ` : "  ";
    if (event.type === "group") {
      this.#groups = event.groups;
      this.#behind.set(full, 0);
      this.#say(`group ${event.index + 1} of ${event.groups}: ${range}`);
    } else if (event.type === "measured") {
      const { step, missed } = event.measured;
      const shares = [...missed.values()];
      const mean = shares.reduce((sum, value) => sum + value, 0) / shares.length;
      const star = event.best ? "  best so far" : "";
      this.#say(`${name}step ${step}: held-out attention missed ${(100 * mean).toFixed(2)}%${star}`);
    } else if (event.type === "trained") {
      this.#behind.set(full, this.#steps);
    } else if (event.type === "step") {
      if (this.#done++ === 0) this.#began = performance.now();
      const { step, losses } = event.done;
      this.#behind.set(full, step + 1);
      const now = performance.now();
      if (now - this.#told < QUIET_MS) return;
      this.#told = now;
      const all = [...losses.values()];
      const mean = all.reduce((sum, value) => sum + value, 0) / all.length;
      this.#say(`${name}step ${step + 1} of ${this.#steps}  KL ${mean.toFixed(4)}${this.#left()}`);
    }
  }

  /** A layer has taken so many sequences from one boundary to the next. */
  carried(layer: number, done: number, total: number): void {
    const now = performance.now();
    if (now - this.#told < QUIET_MS || done === total) return;
    this.#told = now;
    this.#say(`  hidden states: layer ${layer}, ${done} of ${total} sequences`);
  }

  #left(): string {
    if (this.#done < 3) return "";
    const perStep = (performance.now() - this.#began) / (this.#done - 1);
    const behind = [...this.#behind.values()].reduce((sum, steps) => sum + steps, 0);
    return `  about ${formatDuration(((this.#groups * this.#steps - behind) * perStep) / 1000)} left`;
  }
}
