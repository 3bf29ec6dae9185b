/** Python's `difflib.SequenceMatcher`: how much of two texts stands in common blocks. */

/** From this length of `b` on, characters that make up more than 1% of it start no block. */
const POPULAR_FROM = 200;

/** `SequenceMatcher(None, a, b).ratio()` of two texts. It depends on the order of its arguments. */
export function sequenceRatio(a: string, b: string): number {
  const [left, right] = [[...a], [...b]];
  const length = left.length + right.length;
  return length === 0 ? 1 : (2 * matchedByBlocks(left, right)) / length;
}

/**
 * Characters of all blocks: Ratcliff-Obershelp after Python's `difflib.SequenceMatcher(None, a, b)`: the longest block of both, then the same to
 * its left and right. Among equally long blocks the one that begins earliest in `a`, then in `b`, wins.
 */
export function matchedByBlocks(a: readonly string[], b: readonly string[]): number {
  const places = startingPlaces(b);
  let matched = 0;
  const ranges: [number, number, number, number][] = [[0, a.length, 0, b.length]];
  for (let range = ranges.pop(); range !== undefined; range = ranges.pop()) {
    const [aLow, aHigh, bLow, bHigh] = range;
    const [i, j, size] = longestBlock(a, b, places, range);
    if (size === 0) continue;
    matched += size;
    if (aLow < i && bLow < j) ranges.push([aLow, i, bLow, j]);
    if (i + size < aHigh && j + size < bHigh) ranges.push([i + size, aHigh, j + size, bHigh]);
  }
  return matched;
}

function startingPlaces(b: readonly string[]): Map<string, number[]> {
  const places = new Map<string, number[]>();
  for (const [j, character] of b.entries()) {
    const known = places.get(character);
    if (known === undefined) places.set(character, [j]);
    else known.push(j);
  }
  if (b.length < POPULAR_FROM) return places;
  const most = Math.floor(b.length / 100) + 1;
  for (const [character, found] of places) if (found.length > most) places.delete(character);
  return places;
}

function longestBlock(
  a: readonly string[],
  b: readonly string[],
  places: ReadonlyMap<string, readonly number[]>,
  [aLow, aHigh, bLow, bHigh]: readonly [number, number, number, number],
): [i: number, j: number, size: number] {
  let [bestI, bestJ, bestSize] = [aLow, bLow, 0];
  // Length of the block that ends with a[i - 1] and b[j], by j.
  let before = new Map<number, number>();
  for (let i = aLow; i < aHigh; i++) {
    const now = new Map<number, number>();
    for (const j of places.get(a[i] ?? "") ?? []) {
      if (j < bLow) continue;
      if (j >= bHigh) break;
      const size = (before.get(j - 1) ?? 0) + 1;
      now.set(j, size);
      if (size > bestSize) [bestI, bestJ, bestSize] = [i - size + 1, j - size + 1, size];
    }
    before = now;
  }
  // Popular characters start no block but belong to one.
  while (bestI > aLow && bestJ > bLow && a[bestI - 1] === b[bestJ - 1]) {
    bestI--;
    bestJ--;
    bestSize++;
  }
  while (bestI + bestSize < aHigh && bestJ + bestSize < bHigh && a[bestI + bestSize] === b[bestJ + bestSize])
    bestSize++;
  return [bestI, bestJ, bestSize];
}
