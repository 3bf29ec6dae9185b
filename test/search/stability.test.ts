/** What a search says of its own stability: against searches that were really made on resampled sequences, and by reason. */
import { describe, expect, test } from "vitest";
import { Random } from "../../src/base/random.ts";
import { fullLayers, fullPattern, isFull, type Pattern, sourceLayer } from "../../src/pattern/pattern.ts";
import { oneByOne, type SearchOptions } from "../../src/search/events.ts";
import { search } from "../../src/search/search.ts";
import { PatternSpace } from "../../src/search/space.ts";
import { blockwise } from "../../src/search/strategies/blockwise.ts";
import { exhaustive } from "../../src/search/strategies/exhaustive.ts";
import { greedy } from "../../src/search/strategies/greedy.ts";
import { refine } from "../../src/search/strategies/refine.ts";
import type { SearchMethod } from "../../src/search/strategy.ts";
import { readLandscape } from "./landscape.ts";
import { indices } from "./synthetic.ts";

type Loss = (pattern: Pattern, index: number) => number;

async function searchBy(
  method: SearchMethod,
  loss: Loss,
  layers: number,
  { sequences = indices(8), ...options }: Partial<SearchOptions> & Pick<SearchOptions, "targets">,
) {
  const evaluate = oneByOne(async (pattern, asked) =>
    asked.map((index) => ({ loss: loss(pattern, index), tokens: 100 })),
  );
  const space = new PatternSpace(fullPattern(layers));
  for await (const event of search(method, { space, evaluate, sequences, stability: true, ...options })) {
    if (event.kind === "done") return event.result;
  }
  throw new Error("a search without a result");
}

function known(result: Awaited<ReturnType<typeof searchBy>>) {
  if (result.stability === undefined || typeof result.stability === "string")
    throw new Error(`unknown: ${result.stability}`);
  return result.stability;
}

/** Each Shared layer costs something; on sequence `index` layer `index % layers` costs much. */
function whims(pattern: Pattern, index: number): number {
  let loss = 1;
  for (let layer = 1; layer < pattern.length; layer++) {
    if (!isFull(pattern, layer)) loss += 0.01 * layer + (index % pattern.length === layer ? 1 : 0);
  }
  return loss;
}

describe.each([
  ["demo", 3],
  ["l12", 3],
  ["l10", 4],
] as const)("%s to %i Full layers", (name, retain) => {
  const { layers, calibration } = readLandscape(name);
  const loss: Loss = (pattern, index) => calibration.perSequence(pattern)[index] ?? Number.NaN;
  const sequences = indices(8);

  test.each([greedy, refine])("layers are Full as often as in $name on resampled sequences", async (strategy) => {
    const [own] = known(await searchBy({ strategy }, loss, layers, { sequences, targets: [retain] }));
    const random = new Random(5);
    const found: Pattern[] = [];
    for (let resample = 0; resample < 60; resample++) {
      const drawn = sequences.map(() => random.pick(sequences));
      const again: Loss = (pattern, index) => loss(pattern, drawn[index] ?? 0);
      const { patterns } = await searchBy({ strategy }, again, layers, {
        sequences,
        targets: [retain],
        stability: false,
      });
      found.push((patterns[0] as { pattern: Pattern }).pattern);
    }
    for (let layer = 0; layer < layers; layer++) {
      const really = found.filter((pattern) => isFull(pattern, layer)).length / found.length;
      // Two samples, of 60 and of 100 resamples; what the losses that were never measured add is in it.
      expect(Math.abs((own?.full[layer] ?? 0) - really)).toBeLessThan(0.22);
    }
  });
});

test("comes after what was found, lets others have their turn, and can be interrupted", async () => {
  const work = (signal?: AbortSignal) =>
    search(
      { strategy: greedy },
      {
        space: new PatternSpace(fullPattern(12)),
        evaluate: oneByOne(async (pattern, asked) =>
          asked.map((index) => ({ loss: whims(pattern, index), tokens: 9 })),
        ),
        sequences: indices(8),
        targets: [3],
        stability: true,
        ...(signal === undefined ? {} : { signal }),
      },
    );
  let turns = -1;
  const count = (): void => {
    turns++;
    if (turns < 1000) setImmediate(count);
  };
  for await (const event of work()) {
    if (event.kind === "found") {
      expect(event.result.stability).toBeUndefined();
      count();
    }
    if (event.kind === "done") expect(event.result.stability).toHaveLength(1);
  }
  // A turn for each step of each resample, of which there are hundreds.
  expect(turns).toBe(1000);

  const controller = new AbortController();
  const kinds: string[] = [];
  const interrupted = async (): Promise<void> => {
    for await (const { kind } of work(controller.signal)) {
      kinds.push(kind);
      if (kind === "found") setImmediate(() => controller.abort(new Error("stop")));
    }
  };
  await expect(interrupted()).rejects.toThrow("stop");
  expect(kinds.at(-1)).toBe("found");
});

test("sequences that all say the same are stable with the fewest", async () => {
  const loss: Loss = (pattern) => [...pattern].reduce((sum, _, layer) => sum + layer - sourceLayer(pattern, layer), 0);
  const [own] = known(await searchBy({ strategy: greedy }, loss, 6, { targets: [3] }));
  expect(own).toMatchObject({ retain: 3, agreement: 1, needed: 4, resamples: 100 });
  expect(own?.full.every((share) => share === 0 || share === 1)).toBe(true);
});

test("sequences that contradict each other are not, and the same search says the same again", async () => {
  const options = { targets: [3, 2] };
  const result = known(await searchBy({ strategy: greedy }, whims, 8, options));
  expect(result).toEqual(known(await searchBy({ strategy: greedy }, whims, 8, options)));
  expect(result.map(({ retain }) => retain)).toEqual([3, 2]);
  for (const { agreement, full, needed, tried } of result) {
    expect(agreement).toBeLessThan(0.6);
    expect(needed ?? tried).toBeGreaterThan(8);
    expect(full[0]).toBe(1);
  }
  // Of each resample's pattern three layers are Full.
  expect(result[0]?.full.reduce((sum, share) => sum + share, 0)).toBeCloseTo(3, 9);
});

test("an exhaustive search is resampled over all that it measured", async () => {
  const [own] = known(await searchBy({ strategy: exhaustive }, whims, 8, { targets: [3] }));
  expect(own?.agreement).toBeLessThan(0.6);
});

test("a resample has of each source as many sequences as its share", async () => {
  // One sequence in eight decides, and weighs as much as the seven others: a resample that misses it decides otherwise.
  const loss: Loss = (pattern, index) => 1 + (isFull(pattern, index === 0 ? 2 : 1) ? 0 : index === 0 ? 1 : 0.1);
  const options = { targets: [2] };
  const [mixed] = known(
    await searchBy({ strategy: greedy }, loss, 3, { ...options, sources: [[0], [1, 2, 3, 4, 5, 6, 7]] }),
  );
  expect(mixed).toMatchObject({ agreement: 1 });
  const [pooled] = known(await searchBy({ strategy: greedy }, loss, 3, options));
  expect(pooled?.agreement).toBeLessThan(0.9);
});

test("runs of Shared layers that are too long are in no resample", async () => {
  const space = new PatternSpace(fullPattern(9), { maxSharedRun: 2 });
  const [own] = known(await searchBy({ strategy: greedy }, whims, 9, { space, targets: [3] }));
  expect(own?.full).toEqual([1, 0, 0, 1, 0, 0, 1, 0, 0]);
  expect(own?.agreement).toBe(1);
});

test.each([
  ["race", { strategy: greedy, race: { alpha: 0.1, block: 2, seed: 0 } }, indices(8)],
  ["bound", { strategy: greedy, bounded: true }, indices(8)],
  ["strategy", { strategy: blockwise, settings: { blocks: 2 } }, indices(8)],
  ["few sequences", { strategy: greedy }, indices(3)],
] as const)("unknown: %s", async (reason, method, sequences) => {
  const { stability } = await searchBy(method, whims, 8, { targets: [3], sequences });
  expect(stability).toBe(reason);
});

test("a pattern with every indexer needs no search", async () => {
  const { patterns, stability } = await searchBy({ strategy: greedy }, whims, 8, { targets: [8, 4] });
  expect(patterns.map(({ pattern }) => fullLayers(pattern).length)).toEqual([8, 4]);
  expect(stability).toHaveLength(1);
});
