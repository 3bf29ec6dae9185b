import { expect, test } from "vitest";
import type { JournalContent, JournalEntry } from "../../src/formats/journal.ts";
import { formatStatus, statusRecord } from "../../src/report/search/search-status.ts";

function entry(pattern: string, losses: Record<number, number>): JournalEntry {
  const sequences = Object.entries(losses).map(([index, loss]) => ({ index: Number(index), loss, tokens: 10 }));
  return { pattern, sequences, seconds: 1.5, executions: { body: 1, indexer: 1, naive_body: 1, naive_indexer: 1 } };
}

const content: JournalContent = {
  fingerprint: {
    model_name: "tiny",
    model_config_hash: "a",
    weight_hash: "b",
    calibration_hash: "c",
    settings: { dtype: "float32" },
    search: { strategy: "greedy", objective: "nll", pin_full: "0,2" },
    tool_version: "0.1.0",
  },
  entries: [
    entry("FFF", { 0: 1, 2: 3 }),
    entry("FSF", { 0: 1.5, 2: 3 }),
    entry("FFS", { 0: 1.25, 2: 3 }),
    // Dropped by a race before its second sequence.
    entry("FSS", { 0: 9 }),
    // Held out, at the end.
    entry("FFF", { 1: 2 }),
    entry("FFS", { 1: 2.5 }),
  ],
  wholeBytes: 0,
};

test("the status of a search tells the best pattern of each size on the sequences that the search judges by", () => {
  const status = statusRecord(content);
  expect(status).toMatchObject({ strategy: "greedy", patterns: 4, sequence_evaluations: 9, seconds: 9 });
  expect(status.best).toEqual([
    { full_layers: 3, index_topk_pattern: "FFF", loss: 2, change: 0 },
    { full_layers: 2, index_topk_pattern: "FFS", loss: 2.125, change: 0.125 },
  ]);
  expect(formatStatus(status)).toContain("Search    greedy, objective nll, pin full 0,2\n");
});

test("the status of a search that has measured nothing is that", () => {
  expect(statusRecord({ ...content, entries: [] })).toMatchObject({ patterns: 0, best: [] });
});

test("the first evaluation, which also opens and warms up, says nothing about the time that is left", () => {
  const asOf = (...seconds: number[]) => {
    const entries = seconds.map((each, index) => ({
      ...entry(["FFF", "FSF", "FFS"][index] ?? "", { 0: 1 }),
      seconds: each,
      position: { done: index + 1, total: 10 },
    }));
    const status = statusRecord({ ...content, entries });
    return { left: status.seconds_left, position: formatStatus(status).match(/Position +(.*)/)?.[1] };
  };
  expect(asOf(900)).toEqual({ left: null, position: "1 of 10 patterns" });
  expect(asOf(900, 3, 5)).toEqual({ left: 28, position: "3 of 10 patterns, about 28 s left" });
});
