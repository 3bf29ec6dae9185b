import { expect, test } from "vitest";
import { ReaderCount } from "../../src/checkpoint/reader-count.ts";

/** How many readers there are in the end, and at most, on a machine where so many read so many MiB a second together. */
function countFor(most: number, rate: (readers: number) => number): { last: number; largest: number } {
  const readers = new ReaderCount(most);
  let largest = 1;
  let seconds = 0;
  const block = 8;
  for (let read = 0; read < 100_000; read += block) {
    seconds += block / rate(readers.count);
    readers.add(block << 20, seconds);
    largest = Math.max(largest, readers.count);
  }
  return { last: readers.count, largest };
}

test.each([
  ["cores that hash files in memory", 16, (readers: number) => 1300 * readers, { last: 16, largest: 16 }],
  ["six cores", 6, (readers: number) => 1300 * readers, { last: 6, largest: 6 }],
  [
    "two threads of a core each",
    16,
    (readers: number) => 1300 * Math.min(readers, 8) + 300 * Math.max(0, readers - 8),
    { last: 16, largest: 16 },
  ],
  ["a disk of 3 GB/s", 16, (readers: number) => Math.min(3000, 1300 * readers), { last: 8, largest: 8 }],
  ["a disk that one reader keeps busy", 16, () => 150, { last: 2, largest: 2 }],
  ["a disk that seeks between two", 16, (readers: number) => 150 / readers, { last: 1, largest: 2 }],
  [
    "storage across a network, in which each reader waits",
    16,
    (readers: number) => 200 * readers,
    { last: 16, largest: 16 },
  ],
  ["one core", 1, (readers: number) => 1300 * readers, { last: 1, largest: 1 }],
])("%s", (_, most, rate, expected) => {
  expect(countFor(most, rate)).toEqual(expected);
});
