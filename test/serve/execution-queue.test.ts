/** Who may use the model when: turns of requests under way, and what has to be alone. */
import { expect, test } from "vitest";
import { ExecutionQueue } from "../../src/serve/execution-queue.ts";

/** Work that tells what it does and ends when it is let go. */
function work(queue: ExecutionQueue, log: string[], name: string, beginnings: string[] | undefined) {
  let end = (): void => undefined;
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const body = async (): Promise<void> => {
    log.push(`${name} begins`);
    await ended;
    log.push(`${name} ends`);
  };
  const done = beginnings === undefined ? queue.run(body) : queue.share(beginnings, body);
  return { end, done };
}

/** Lets everything that may go on go on. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("requests are under way together, but for those that begin alike", async () => {
  const [queue, log] = [new ExecutionQueue(), [] as string[]];
  const first = work(queue, log, "first", ["a"]);
  const alike = work(queue, log, "alike", ["b", "a"]);
  const later = work(queue, log, "later", ["b"]);
  const other = work(queue, log, "other", ["c"]);
  await settle();
  // `later` has nothing in common with what runs, but with what waits before it.
  expect(log).toEqual(["first begins", "other begins"]);
  expect([queue.running, queue.waiting]).toEqual([2, 2]);
  first.end();
  await first.done;
  await settle();
  expect(log.slice(2)).toEqual(["first ends", "alike begins"]);
  for (const { end } of [alike, later, other]) end();
  await Promise.all([alike.done, later.done, other.done]);
  expect(queue.running + queue.waiting).toBe(0);
});

test("what has to be alone waits for all before it, and nothing overtakes it", async () => {
  const [queue, log] = [new ExecutionQueue(), [] as string[]];
  const before = work(queue, log, "before", []);
  const alone = work(queue, log, "alone", undefined);
  const after = work(queue, log, "after", []);
  await settle();
  expect(log).toEqual(["before begins"]);
  before.end();
  await settle();
  expect(log.at(-1)).toBe("alone begins");
  alone.end();
  await settle();
  expect(log.at(-1)).toBe("after begins");
  after.end();
  await after.done;
});

test("steps take turns, and one that fails leaves the next its turn", async () => {
  const [queue, log] = [new ExecutionQueue(), [] as string[]];
  const steps = (name: string, count: number) =>
    queue.share([], async () => {
      for (let step = 0; step < count; step++) await queue.step(async () => void log.push(`${name}${step}`));
    });
  const failing = queue.share([], () => queue.step(() => Promise.reject(new Error("no"))));
  await Promise.all([steps("long", 4), steps("short", 2), expect(failing).rejects.toThrow("no")]);
  expect(log).toEqual(["long0", "short0", "long1", "short1", "long2", "long3"]);
});

test("no more than four are under way", async () => {
  const [queue, log] = [new ExecutionQueue(), [] as string[]];
  const all = Array.from({ length: 6 }, (_, at) => work(queue, log, `${at}`, [`${at}`]));
  await settle();
  expect([queue.running, queue.waiting]).toEqual([4, 2]);
  for (const { end } of all) end();
  await Promise.all(all.map(({ done }) => done));
  expect(log.filter((line) => line.endsWith("ends"))).toHaveLength(6);
});

test("a request whose client has gone before it began does nothing", async () => {
  const queue = new ExecutionQueue();
  const gone = queue.share([], async () => "done", AbortSignal.abort());
  await expect(gone).rejects.toThrow("Interrupted");
  expect(await queue.share([], async () => "done")).toBe("done");
});
