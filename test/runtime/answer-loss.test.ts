/** Losses of the tokens that count: those of answers after their prompts, whoever computes them. */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import { Tokenizer } from "../../src/checkpoint/tokenizer/tokenizer.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { parsePattern, withShared } from "../../src/pattern/pattern.ts";
import { Arms } from "../../src/runtime/generate/arms.ts";
import type { LossSettings } from "../../src/runtime/loss/loss-evaluator.ts";
import type { SequenceLoss } from "../../src/runtime/measurement.ts";
import { fixturePath } from "../oracle.ts";

const root = join(import.meta.dirname, "..", "..");
// The built program has the program of a child beside it.
const built = pathToFileURL(join(root, "dist", "runtime", "loss", "loss-evaluator.js")).href;
const { openLossEvaluator }: typeof import("../../src/runtime/loss/loss-evaluator.ts") = await import(built);

const windows = [70, 75, 90].map((length, index) =>
  Int32Array.from({ length }, (_, position) => 3 + ((index * 57 + position * (position + 31)) % 80)),
);
/** Below `index_topk`, above it, and the last token alone. */
const scoredFrom = [6, 60, 89];

async function lossesOf(given: readonly Int32Array[], settings: Partial<LossSettings> & { workers: number }) {
  const model = await openModel(fixturePath("glm-groups"));
  const evaluator = await openLossEvaluator(model, given, { device: "cpu", threads: 1, ...settings });
  const full = model.config.indexerLayers;
  const pattern = withShared(full, 2);
  try {
    const { sequences } = await evaluator.evaluate(pattern, { base: full });
    const [one, ...others] = (await evaluator.evaluate(pattern, { base: full, sequences: [2, 0] })).sequences;
    expect([one, ...others]).toEqual([sequences[2], sequences[0]]);
    return sequences;
  } finally {
    await evaluator.release();
  }
}

describe.each([
  { workers: 1 },
  { workers: 2 },
  { workers: 1, stateBytes: 0 },
  { workers: 1, objective: "kl" as const },
  { workers: 1, dtype: "float16" as const },
])("%o", (settings) => {
  test("the loss of the end is what the whole has and the beginning has not", async () => {
    const ends = await lossesOf(windows, { ...settings, scoredFrom });
    const whole = await lossesOf(windows, settings);
    const beginnings = await lossesOf(
      windows.map((window, index) => window.slice(0, scoredFrom[index])),
      settings,
    );
    const total = (one: SequenceLoss | undefined, of: "loss" | "kl"): number => (one?.[of] ?? 0) * (one?.tokens ?? 0);
    for (const [index, end] of ends.entries()) {
      expect(end.tokens).toBe((windows[index]?.length ?? 0) - (scoredFrom[index] ?? 0));
      const places = settings.dtype === undefined ? 4 : 1;
      for (const of of ["loss", "kl"] as const) {
        const rest = total(whole[index], of) - total(beginnings[index], of);
        expect(total(end, of)).toBeCloseTo(rest, places);
      }
    }
    expect(ends.every(({ loss }, index) => loss !== whole[index]?.loss)).toBe(true);
  });
});

test("positions that are none are refused", async () => {
  const model = await openModel(fixturePath("glm-groups"));
  for (const wrong of [[1], [0, 1, 1], [70, 1, 1]]) {
    const opening = openLossEvaluator(model, windows, { device: "cpu", workers: 1, scoredFrom: wrong });
    await expect(opening).rejects.toThrow(RangeError);
  }
});

test("an answer's loss is the one that eval gives the same ids as the gold answer", async () => {
  const model = await openModel(join(root, "models", "demo"));
  const prompt = Array.from({ length: 180 }, (_, position) => 3 + ((position * (position + 31)) % 2000));
  const ids = [...prompt, 17, 300, 42];
  const patterns = [parsePattern("FFFFFFFFFFFF"), parsePattern("FSSSFSSSFSSS")];
  const arms = await Arms.open(model, await Tokenizer.load(model.path), patterns, { device: "cpu", threads: 1 });
  const answers = await arms.answer(
    { prompt, maxNewTokens: 1, stop: [], answer: { ids, start: prompt.length } },
    patterns,
  );
  await arms.release();
  const evaluator = await openLossEvaluator(model, [Int32Array.from(ids)], {
    ...{ device: "cpu", threads: 1, workers: 1 },
    scoredFrom: [prompt.length],
  });
  for (const [index, pattern] of patterns.entries()) {
    const { loss, tokens } = await evaluator.evaluate(pattern);
    const gold = answers[index]?.answerLoss;
    expect(tokens).toBe(gold?.tokens);
    expect(Math.abs(loss - (gold?.nats ?? 0) / 3)).toBeLessThan(1e-5);
  }
  await evaluator.release();
});
