import { describe, expect, test } from "vitest";
import {
  counted,
  formatBytes,
  formatCount,
  formatDuration,
  formatLossChange,
  formatMagnitude,
  formatRate,
} from "../../src/report/quantities.ts";
import { formatFields, formatTable, left, right } from "../../src/report/text-table.ts";

describe("quantities", () => {
  test("bytes", () => {
    expect([0, 1023, 1024, 1536, 5 * 2 ** 20, 3.456 * 2 ** 30, 2 ** 50].map(formatBytes)).toEqual([
      "0 B",
      "1023 B",
      "1 KiB",
      "1.5 KiB",
      "5 MiB",
      "3.46 GiB",
      "1020 TiB",
    ]);
  });

  test("a count agrees with its noun", () => {
    expect([0, 1, 2, 12_345].map((count) => counted(count, "sequence"))).toEqual([
      "0 sequences",
      "1 sequence",
      "2 sequences",
      "12,345 sequences",
    ]);
  });

  test("durations never read 60 seconds or 60 minutes", () => {
    expect([0, 0.0123, 1.26, 9.96, 59.4, 59.6, 185, 3599.7, 3600, 7620, 100 * 3600].map(formatDuration)).toEqual([
      "0 s",
      "0.012 s",
      "1.3 s",
      "10 s",
      "59 s",
      "1 min 00 s",
      "3 min 05 s",
      "1 h 00 min",
      "1 h 00 min",
      "2 h 07 min",
      "100 h 00 min",
    ]);
  });

  test("counts, sizes, rates and changes", () => {
    expect(formatCount(1234567)).toBe("1,234,567");
    expect([999, 4200, 4_210_000, 745e9].map(formatMagnitude)).toEqual(["999", "4.2K", "4.21M", "745B"]);
    expect(formatRate(100, 8)).toBe("12.5 tokens/s");
    expect(formatRate(100_000, 8)).toBe("12,500 tokens/s");
    expect(formatRate(0, 0)).toBe("-");
    expect([0.5, -0.25].map(formatLossChange)).toEqual(["+0.50000", "-0.25000"]);
  });
});

describe("tables", () => {
  test("align columns and leave no blanks at line ends", () => {
    const names = ["äöü", ""];
    const table = formatTable(names, [
      right("Step", (_, index) => String(10 ** index)),
      left("Name", (name) => name),
      false,
    ]);
    expect(table).toBe("Step  Name\n   1  äöü\n  10");
  });

  test("fields without a value are left out", () => {
    expect(
      formatFields([
        ["Loss", "2"],
        ["None", undefined],
        ["Perplexity", "7.4"],
      ]),
    ).toBe("Loss        2\nPerplexity  7.4");
  });
});
