import { expect, test } from "vitest";
import type { AnsweredItem } from "../../../src/eval/run/evaluation.ts";
import { EvalProgressTracker } from "../../../src/eval/run/progress.ts";

test("the time left is foreseen from two items on: the first also opens sessions and warms up", () => {
  const tracker = new EvalProgressTracker(["full"], 10, 0);
  const item = {
    index: 0,
    item: { task: "vt", length: 512 },
    samples: [{ score: 1 }],
    fresh: [{}],
  } as unknown as AnsweredItem;
  tracker.advance(item);
  expect(tracker.at(30).etaSeconds).toBeUndefined();
  tracker.advance(item);
  expect(tracker.at(40).etaSeconds).toBe(160);
});
