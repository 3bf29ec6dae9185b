/** How far a distillation is, and what a person sees of it: lines here, a live view in the `tui` room. */
import type { DistillEvent } from "../../distill/group-training.ts";
import { PacedLines } from "../paced-lines.ts";
import { counted, formatDuration } from "../quantities.ts";

/** A group of layers whose training has begun. */
export interface GroupProgress {
  /** `layers 4 to 7` */
  name: string;
  /** Steps done. */
  step: number;
  /** KL divergence to the attention of the layers served, of the last step: nats, mean over trained layers. */
  divergence?: number;
  /** Share of the held-out attention that the selection misses: as it came, and as it is at best. */
  missedFirst?: number;
  missedBest?: number;
  /** The step whose indexers are kept; undefined while it is trained. */
  kept?: number;
}

export interface DistillState {
  /** Of a group. */
  steps: number;
  /** All groups, those to come included; 0 until the first has begun. */
  total: number;
  groups: readonly GroupProgress[];
  /** Sequences that a layer has taken from one boundary to the next, while hidden states are made. */
  carried?: { layer: number; done: number; total: number } | undefined;
  elapsedSeconds: number;
  leftSeconds?: number | undefined;
}

export interface DistillDisplay {
  show(state: DistillState, event?: DistillEvent): void;
  /** May be called again. */
  close(): void;
}

/** Adds up the events of a distillation. */
export class DistillProgress {
  readonly #steps: number;
  readonly #seconds: () => number;
  readonly #began: number;
  readonly #groups = new Map<number, GroupProgress>();
  #total = 0;
  #carried: DistillState["carried"];
  /** Steps of this process; a run that is taken up again has done others before. */
  #done = 0;
  #firstStep = 0;
  #lastStep = 0;

  /** @param seconds a clock */
  constructor(steps: number, seconds: () => number) {
    this.#steps = steps;
    this.#seconds = seconds;
    this.#began = seconds();
  }

  take(event: DistillEvent): void {
    const { full } = event.group;
    const group = this.#groups.get(full) ?? { name: groupName(event), step: 0 };
    this.#groups.set(full, group);
    if (event.type === "group") this.#total = event.groups;
    else if (event.type === "measured") {
      const missed = mean(event.measured.missed.values());
      group.missedFirst ??= missed;
      if (event.best) group.missedBest = missed;
    } else if (event.type === "trained") {
      group.step = this.#steps;
      group.kept = event.step;
    } else if (event.type === "step") {
      this.#carried = undefined;
      this.#lastStep = this.#seconds();
      if (this.#done++ === 0) this.#firstStep = this.#lastStep;
      group.step = event.done.step + 1;
      group.divergence = mean(event.done.losses.values());
    }
  }

  carry(layer: number, done: number, total: number): void {
    this.#carried = done === total ? undefined : { layer, done, total };
  }

  get state(): DistillState {
    return {
      steps: this.#steps,
      total: this.#total,
      groups: [...this.#groups.values()],
      carried: this.#carried,
      elapsedSeconds: this.#seconds() - this.#began,
      leftSeconds: this.#left(),
    };
  }

  /** By the steps of this process; the hidden states between groups are not foreseen. */
  #left(): number | undefined {
    if (this.#done < 3) return undefined;
    const done = [...this.#groups.values()].reduce((sum, { step }) => sum + step, 0);
    const each = (this.#lastStep - this.#firstStep) / (this.#done - 1);
    return Math.max(0, (this.#total * this.#steps - done) * each - (this.#seconds() - this.#lastStep));
  }
}

function mean(values: Iterable<number>): number {
  const all = [...values];
  return all.reduce((sum, value) => sum + value, 0) / all.length;
}

/** A few lines for each group of layers, with the time that is left. */
export class PlainDistillDisplay implements DistillDisplay {
  readonly #several: boolean;
  readonly #say: (line: string) => void;
  /** Those that only say that work goes on. */
  readonly #lines: PacedLines;

  /** @param several groups may be trained at the same time: lines name theirs */
  constructor(several: boolean, say: (line: string) => void) {
    this.#several = several;
    this.#say = say;
    this.#lines = new PacedLines(say);
  }

  show({ carried, steps, elapsedSeconds, leftSeconds }: DistillState, event?: DistillEvent): void {
    if (event === undefined) {
      if (carried !== undefined) this.#lines.sayIfSilent(elapsedSeconds, () => `  ${describeCarried(carried)}`);
      return;
    }
    const range = groupName(event);
    const name = this.#several ? `  ${range}: ` : "  ";
    if (event.type === "group") {
      this.#say(`group ${event.index + 1} of ${event.groups}: ${range}`);
    } else if (event.type === "measured") {
      const { step, missed } = event.measured;
      const star = event.best ? "  best so far" : "";
      this.#say(`${name}step ${step}: held-out attention missed ${percent(mean(missed.values()))}${star}`);
    } else if (event.type === "step") {
      const { step, losses } = event.done;
      const left = leftSeconds === undefined ? "" : `  about ${formatDuration(leftSeconds)} left`;
      const words = () => `${name}step ${step + 1} of ${steps}  KL ${mean(losses.values()).toFixed(4)}${left}`;
      this.#lines.sayIfSilent(elapsedSeconds, words);
    }
  }

  close(): void {}
}

/** `layers 4 to 7` */
function groupName({ group: { layers, full } }: DistillEvent): string {
  const last = layers.at(-1);
  return last === full ? `layer ${full}` : `layers ${full} to ${last}`;
}

export function describeCarried({ layer, done, total }: NonNullable<DistillState["carried"]>): string {
  return `hidden states: layer ${layer}, ${done} of ${counted(total, "sequence")}`;
}

/** A share of the attention. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(2)}%`;
}
