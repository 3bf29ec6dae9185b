import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type AnyPatternFile, isPublished, parseAnyPatternFile } from "../../src/formats/published-pattern.ts";
import { fullLayers } from "../../src/pattern/pattern.ts";

const folder = join(import.meta.dirname, "..", "..", "patterns");
const names = readdirSync(folder).sort();

function read(name: string): AnyPatternFile {
  return parseAnyPatternFile(readFileSync(join(folder, name), "utf8"), name);
}

describe("patterns/", () => {
  test("holds the published patterns and ours", () => {
    expect(names).toEqual([
      "README.md",
      "deepseek-v3.2-borrowed.json",
      "demo-quarter.json",
      "glm-4.7-flash-dsa-eighth.json",
      "glm-4.7-flash-dsa-half.json",
      "glm-4.7-flash-dsa-quarter.json",
      "glm-5-half.json",
      "glm-5-quarter.json",
    ]);
  });

  test.each(names.filter((name) => name.endsWith(".json")))("%s reads", (name) => {
    const file = read(name);
    expect(isPublished(file)).toBe(name !== "demo-quarter.json");
  });

  test("Full layers are those that the sources count", () => {
    const counts = [
      "glm-5-half",
      "glm-5-quarter",
      "glm-4.7-flash-dsa-half",
      "glm-4.7-flash-dsa-quarter",
      "glm-4.7-flash-dsa-eighth",
    ];
    expect(counts.map((name) => fullLayers(read(`${name}.json`).index_topk_pattern).length)).toEqual([
      40, 22, 24, 12, 7,
    ]);
  });

  test("each model's patterns are nested: cuts of one search", () => {
    const isSubset = (inner: string, outer: string): boolean => {
      const kept = fullLayers(read(outer).index_topk_pattern);
      return fullLayers(read(inner).index_topk_pattern).every((layer) => kept.includes(layer));
    };
    expect(isSubset("glm-5-quarter.json", "glm-5-half.json")).toBe(true);
    expect(isSubset("glm-4.7-flash-dsa-quarter.json", "glm-4.7-flash-dsa-half.json")).toBe(true);
    expect(isSubset("glm-4.7-flash-dsa-eighth.json", "glm-4.7-flash-dsa-quarter.json")).toBe(true);
  });

  test("DeepSeek-V3.2's is GLM-5's, cut off, and says so", () => {
    const borrowed = read("deepseek-v3.2-borrowed.json");
    expect(borrowed.index_topk_pattern).toBe(read("glm-5-half.json").index_topk_pattern.slice(0, 61));
    expect(isPublished(borrowed) && borrowed.published.certainty).toBe("misattributed");
  });

  test("the demo model's is greedy's on the shipped calibration set", () => {
    const demo = read("demo-quarter.json");
    expect(demo).toMatchObject({
      index_topk_pattern: "FSSFSSSSSFSS",
      calibration: { source: "indexcache:calibration/demo.jsonl" },
      search: { strategy: "greedy" },
    });
  });
});

describe("a published pattern is refused", () => {
  const text = readFileSync(join(folder, "glm-5-half.json"), "utf8");
  test.each([
    ["another version", '"schema_version": 1', '"schema_version": 2', "schema_version"],
    ["a wrong length", '"layers": 78', '"layers": 77', "has 78 letters, the model has 77 layers"],
    ["a wrong count", '"full_layers": 40', '"full_layers": 39', "is 39, the letters have 40 F"],
    ["a certainty of its own", '"certain"', '"sure"', "published.certainty"],
  ])("for %s", (_, part, by, words) => {
    expect(text).toContain(part);
    expect(() => parseAnyPatternFile(text.replace(part, by), "p.json")).toThrow(words);
  });
});
