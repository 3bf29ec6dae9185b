import { afterEach, expect, test, vi } from "vitest";
import { Countdown } from "../../src/cli/console/patience.ts";

afterEach(() => vi.useRealTimers());

test("a countdown foresees nothing from what was done first, which also opens and warms up", () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  const said: string[] = [];
  const countdown = new Countdown({ note: (line) => said.push(line) }, "chunks");
  vi.advanceTimersByTime(90_000);
  countdown.tell(1, 24);
  vi.advanceTimersByTime(6_000);
  countdown.tell(4, 24);
  countdown.tell(24, 24);
  expect(said).toEqual(["1 of 24 chunks", "4 of 24 chunks, about 40 s left"]);
});
