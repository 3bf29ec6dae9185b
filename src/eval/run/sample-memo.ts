/** Samples by what they are samples of. */
import type { Sample } from "../../formats/sample-journal.ts";

export type ItemKey = Pick<Sample, "task" | "length" | "id">;
export type ArmKey = Pick<Sample["arm"], "pattern" | "repeat">;

export function itemKey({ task, length, id }: ItemKey): string {
  return JSON.stringify([task, length ?? null, id]);
}

export function armKey({ pattern, repeat }: ArmKey): string {
  return `${pattern}/${repeat}`;
}

export class SampleMemo {
  readonly #samples = new Map<string, Sample>();

  constructor(samples: Iterable<Sample>) {
    for (const sample of samples) this.#samples.set(`${armKey(sample.arm)} ${itemKey(sample)}`, sample);
  }

  find(item: ItemKey, arm: ArmKey): Sample | undefined {
    return this.#samples.get(`${armKey(arm)} ${itemKey(item)}`);
  }
}
