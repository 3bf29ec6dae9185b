/** The best pattern known for each number of Full layers: what a search is for, whatever way it goes. */
import { fullLayers } from "../pattern/pattern.ts";
import type { Found } from "./events.ts";
import { improves } from "./ties.ts";

export class Frontier {
  readonly #best = new Map<number, Found>();

  /** Takes a pattern in if none of its size is known, or if it is better by more than a tie. */
  offer(found: Found): boolean {
    const size = fullLayers(found.pattern).length;
    const known = this.#best.get(size);
    if (known !== undefined && !improves(found.evaluation, known.evaluation)) return false;
    this.#best.set(size, found);
    return true;
  }

  /** The same pattern, measured on more sequences. */
  refresh(found: Found): void {
    this.#best.set(fullLayers(found.pattern).length, found);
  }

  at(size: number): Found | undefined {
    return this.#best.get(size);
  }

  /** The most Full layers first. */
  get all(): Found[] {
    return [...this.#best.keys()].sort((left, right) => right - left).flatMap((size) => this.#best.get(size) ?? []);
  }
}

/**
 * The knee of loss over Full layers: the size that lies farthest below the line between both ends, where sharing one more
 * layer begins to cost more than it did on average (Satopää et al. 2011, with loss and size scaled to 0..1).
 * @param points sizes with their losses, at least three, else there is no knee
 */
export function knee(points: readonly { size: number; loss: number }[]): number | undefined {
  const sorted = points.toSorted((left, right) => left.size - right.size);
  const first = sorted[0];
  const last = sorted.at(-1);
  if (sorted.length < 3 || first === undefined || last === undefined || first.loss <= last.loss) return undefined;
  let best: { size: number; depth: number } | undefined;
  for (const { size, loss } of sorted) {
    const along = (size - first.size) / (last.size - first.size);
    const depth = 1 - along - (loss - last.loss) / (first.loss - last.loss);
    if (best === undefined || depth > best.depth) best = { size, depth };
  }
  return best !== undefined && best.depth > 0 ? best.size : undefined;
}
