/**
 * Strategies that no measurement favours over the default: compare.js and tests measure them, the command line does not have
 * them. Each is what src/search/strategy.ts describes.
 */
import { fullLayers } from "../../dist/pattern/pattern.js";
import { isBetter } from "../../dist/search/screening/repeated.js";
import { follow, sparsest, takeStep, tryFrom } from "../../dist/search/step.js";
import { eliminate } from "../../dist/search/strategies/greedy.js";
import { rankedExchanges } from "../../dist/search/strategies/ranked-exchanges.js";
import { chooseBest, chooseBestOnes } from "../../dist/search/ties.js";

const traits = { mayRace: true, isNested: false, isAdaptive: false };

/**
 * Forward selection: from the pattern in which only pinned layers have their indexer, each step gives the one layer its
 * indexer back that lowers the loss most. It tries few patterns if few layers stay Full.
 */
export const forward = {
  ...traits,
  name: "forward",
  summary: "from only the pinned layers Full up, each step the layer whose indexer lowers the loss most",
  run: (trials) =>
    reachTargets(trials, async function* (retain) {
      let current = yield* sparsest(trials);
      for (let size = trials.space.pinned; size < retain; size++) {
        current = yield* takeStep(trials, current, "forward", retain);
      }
    }),
};

/** Like greedy (backward) or forward selection, but the `width` best distinct patterns of each size are followed. */
export function beam(width, direction) {
  return {
    ...traits,
    name: "beam",
    summary: `greedy, or forward, following the ${width} best patterns of each size`,
    async *run(trials, start) {
      if (direction === "backward") yield* followBeam(trials, start, Math.min(...trials.targets));
      else {
        yield* reachTargets(trials, async function* (retain) {
          yield* followBeam(trials, yield* sparsest(trials), retain);
        });
      }
    },
  };

  async function* followBeam(trials, first, retain) {
    let parents = [first];
    for (let steps = Math.abs(fullLayers(first.pattern).length - retain); steps > 0; steps--) {
      trials.step++;
      const children = new Map();
      // One parent after the other: each is the base of its own children, and is run once.
      for (const parent of parents) {
        const patterns = trials.space.flips(parent.pattern, direction, retain);
        for (const child of yield* tryFrom(trials, parent, patterns, width)) {
          if (!children.has(child.pattern)) children.set(child.pattern, child);
        }
      }
      parents = chooseBestOnes([...children.values()], width, trials.tie);
      yield* trials.commit(parents[0]);
    }
  }
}

/**
 * Walks to the largest target, and again to each smaller one that this did not meet: with a limit on runs of Shared
 * layers, what lies on the way to many Full layers need not be allowed itself.
 */
async function* reachTargets({ frontier, targets }, walk) {
  for (const retain of targets.toSorted((left, right) => right - left)) {
    if (frontier.at(retain) === undefined) yield* walk(retain);
  }
}

/**
 * Sequential floating backward selection (Pudil et al. 1994): greedy steps backward, and after each one layers may get
 * their indexer back as long as that beats the best pattern known at the larger size. It ends because every way back up
 * improves what is known of a size by more than a tie.
 */
export const floating = {
  ...traits,
  name: "floating",
  summary: "greedy whose layers become Full again if that beats the best pattern known of that size",
  mayRace: false,
  isAdaptive: true,
  async *run(trials, start) {
    const { frontier, space } = trials;
    const retain = Math.min(...trials.targets);
    let current = start;
    let size = space.size;
    /** Where greedy would have continued, once the search has left its way. */
    let left;
    for (;;) {
      if (size > retain) {
        size--;
        trials.step++;
        const shared = space.flips(current.pattern, "backward", retain);
        const next = chooseBest(yield* tryFrom(trials, current, shared), trials.tie);
        yield* trials.commit(next);
        current = frontier.at(size) ?? next;
      }
      const up = size < space.size - 1 ? yield* wayUp(trials, current, size) : undefined;
      if (up !== undefined) {
        left ??= current;
        size++;
        current = up;
      } else if (size === retain) break;
    }
    // A better pattern of a larger size may lead to a worse one of the final size: greedy's own way is walked as well.
    if (left !== undefined) yield* eliminate(trials, left, retain);
  },
};

/** The best pattern with one more Full layer, if it beats the one that is known. */
async function* wayUp(trials, current, size) {
  const { frontier, space } = trials;
  const known = frontier.at(size + 1);
  const patterns = space.flips(current.pattern, "forward", size + 1).filter((pattern) => space.allows(pattern));
  if (known === undefined || patterns.length === 0) return undefined;
  const up = chooseBest(yield* tryFrom(trials, current, patterns), trials.tie);
  if (!(yield* isBetter(trials, current.pattern, up.pattern, known.pattern))) return undefined;
  yield* trials.commit(up);
  return up;
}

/**
 * A strategy whose results are refined: one Full layer becomes Shared and one Shared layer gets its indexer back, until no
 * exchange helps by more than a tie. With `pairs`, two for two is tried if one for one no longer helps.
 */
export function withSwaps(strategy, { pairs = false } = {}) {
  return {
    ...strategy,
    name: `${strategy.name}, swaps`,
    mayRace: false,
    isNested: false,
    isAdaptive: true,
    async *run(trials, start, settings) {
      yield* strategy.run(trials, start, settings);
      for (const retain of trials.targets) {
        trials.step++;
        yield* swap(trials, trials.frontier.at(retain), pairs ? 2 : 1);
      }
    },
  };
}

/** Swaps until nothing helps; every one that does is committed. */
async function* swap(trials, from, most) {
  let best = from;
  for (let size = 1; size <= most; size++) {
    const patterns = [...rankedExchanges(trials.space, best.pattern, size, () => 0)].map(({ pattern }) => pattern);
    if (patterns.length === 0) continue;
    const tried = yield* trials.tryAll(patterns, best.pattern);
    const found = chooseBest(follow(trials, best, tried), trials.tie);
    if (!(yield* isBetter(trials, best.pattern, found.pattern, best.pattern))) continue;
    best = found;
    yield* trials.commit(best);
    size = 0;
  }
}
