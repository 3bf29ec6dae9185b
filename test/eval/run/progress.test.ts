import { expect, test } from "vitest";
import type { AnsweredItem } from "../../../src/eval/run/evaluation.ts";
import { EvalProgressTracker } from "../../../src/eval/run/progress.ts";

test("the time left is foreseen from what came after the first items, which also open sessions and warm up", () => {
  const tracker = new EvalProgressTracker(["full"], 10, 2, 0);
  const item = {
    index: 0,
    item: { task: "vt", length: 512 },
    samples: [{ score: 1 }],
    fresh: [{}],
  } as unknown as AnsweredItem;
  tracker.advance({ ...item, fresh: [] }, 1);
  tracker.advance(item, 29);
  tracker.advance(item, 30);
  expect(tracker.at(31).etaSeconds).toBeUndefined();
  tracker.advance(item, 34);
  tracker.advance(item, 36);
  expect(tracker.at(36).etaSeconds).toBe(((36 - 30) / 2) * 5);
});
