import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type AnyPatternFile, isPublished, parseAnyPatternFile } from "../../src/formats/published-pattern.ts";
import { fullLayers } from "../../src/pattern/pattern.ts";

const folder = join(import.meta.dirname, "..", "..", "patterns");
const names = readdirSync(folder, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".json"))
  .sort();

function read(name: string): AnyPatternFile {
  return parseAnyPatternFile(readFileSync(join(folder, name), "utf8"), name);
}

describe("patterns/", () => {
  test("holds the published patterns and ours", () => {
    expect(names).toEqual([
      "THUDM/GLM-4.7-Flash-DSA/eighth.json",
      "THUDM/GLM-4.7-Flash-DSA/half.json",
      "THUDM/GLM-4.7-Flash-DSA/quarter.json",
      "deepseek-ai/DeepSeek-V3.2/borrowed.json",
      "indexcache/demo/quarter.json",
      "zai-org/GLM-5.2/trained.json",
      "zai-org/GLM-5/half.json",
      "zai-org/GLM-5/quarter.json",
    ]);
  });

  test.each(names)("%s stands by its model, and says what stands behind it", (name) => {
    const file = read(name);
    expect(name).toMatch(/^[\w.-]+\/[\w.-]+\/[\w.-]+\.json$/);
    if (!isPublished(file)) {
      expect(name.split("/")[1]).toBe(file.model.name);
      expect(file.calibration.tokens).toBeGreaterThan(0);
      expect(file.model.weight_hash).toMatch(/^[0-9a-f]{64}$/);
      return;
    }
    const { tier, certainty, sources, trained } = file.published;
    expect(tier).toBeDefined();
    expect(certainty === "misattributed").toBe(tier === "borrowed");
    for (const { url } of sources) expect(url).toMatch(/^https:\/\//);
    if (certainty === "certain") expect(sources.some(({ evidence }) => evidence === "primary")).toBe(true);
    expect(trained === true).toBe(name.endsWith("/trained.json"));
  });

  test("no two entries are told apart by capitals, or by a slash where the other has a dash", () => {
    const plain = names.flatMap((name) => [name, name.slice(name.indexOf("/") + 1)]);
    const keys = plain.map((name) => name.toLowerCase().replaceAll("/", "-"));
    expect(new Set(keys).size).toBe(keys.length);
  });

  test("GLM-5.2's is what its frequency 4 with offset 3 makes Full", () => {
    const letters = Array.from({ length: 78 }, (_, layer) => (Math.max(layer - 2, 0) % 4 === 0 ? "F" : "S"));
    expect(read("zai-org/GLM-5.2/trained.json").index_topk_pattern).toBe(letters.join(""));
  });

  test("Full layers are those that the sources count", () => {
    const counts = [
      "zai-org/GLM-5/half",
      "zai-org/GLM-5/quarter",
      "THUDM/GLM-4.7-Flash-DSA/half",
      "THUDM/GLM-4.7-Flash-DSA/quarter",
      "THUDM/GLM-4.7-Flash-DSA/eighth",
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
    expect(isSubset("zai-org/GLM-5/quarter.json", "zai-org/GLM-5/half.json")).toBe(true);
    expect(isSubset("THUDM/GLM-4.7-Flash-DSA/quarter.json", "THUDM/GLM-4.7-Flash-DSA/half.json")).toBe(true);
    expect(isSubset("THUDM/GLM-4.7-Flash-DSA/eighth.json", "THUDM/GLM-4.7-Flash-DSA/quarter.json")).toBe(true);
  });

  test("DeepSeek-V3.2's is GLM-5's, cut off, and says so", () => {
    const borrowed = read("deepseek-ai/DeepSeek-V3.2/borrowed.json");
    expect(borrowed.index_topk_pattern).toBe(read("zai-org/GLM-5/half.json").index_topk_pattern.slice(0, 61));
    expect(isPublished(borrowed) && borrowed.published.certainty).toBe("misattributed");
  });

  test("the demo model's is greedy's on the shipped calibration set", () => {
    const demo = read("indexcache/demo/quarter.json");
    expect(demo).toMatchObject({
      index_topk_pattern: "FSSFSSSSSFSS",
      calibration: { source: "indexcache:calibration/demo.jsonl" },
      search: { strategy: "greedy" },
    });
  });
});

describe("a published pattern is refused", () => {
  const text = readFileSync(join(folder, "zai-org/GLM-5/half.json"), "utf8");
  test.each([
    ["another version", '"schema_version": 1', '"schema_version": 2', "schema_version"],
    ["a wrong length", '"layers": 78', '"layers": 77', "has 78 letters, the model has 77 layers"],
    ["a wrong count", '"full_layers": 40', '"full_layers": 39', "is 39, the letters have 40 F"],
    ["a certainty of its own", '"certain"', '"sure"', "published.certainty"],
    ["a tier of its own", '"vendor"', '"rumour"', "published.tier"],
    ["two tiers at once", '"certain"', '"misattributed"', "of another model"],
  ])("for %s", (_, part, by, words) => {
    expect(text).toContain(part);
    expect(() => parseAnyPatternFile(text.replace(part, by), "p.json")).toThrow(words);
  });
});
