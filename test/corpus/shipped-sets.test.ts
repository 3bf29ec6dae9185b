/** The files that ship are what the manifest and the generator say. */
import { readFileSync } from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";
import { describe, expect, it } from "vitest";
import { hashBytes } from "../../src/base/files.ts";
import { corpusVersion, makeDocuments } from "../../tools/train-demo/corpus/documents.ts";

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

interface ShippedSet {
  file: string;
  seed: number;
  documents: number;
  tokens: number;
  sha256: string;
}

interface Manifest {
  generator: { version: number };
  tokenizer: { sha256: string };
  window: number;
  trainingSeeds: number[];
  sets: ShippedSet[];
  prompt: { answer: string; sha256: string; tokens: number };
}

const manifest = JSON.parse(read("calibration/manifest.json")) as Manifest;
const tokenizer = new Tokenizer(
  JSON.parse(read("models/demo/tokenizer.json")),
  JSON.parse(read("models/demo/tokenizer_config.json")),
);
const count = (text: string) => tokenizer.encode(text).ids.length;

describe("the shipped calibration", () => {
  it("belongs to this generator and this tokenizer", () => {
    expect(manifest.generator.version).toBe(corpusVersion);
    expect(manifest.tokenizer.sha256).toBe(hashBytes(read("models/demo/tokenizer.json")));
  });

  it.each(manifest.sets)("$file has the bytes, documents and tokens of the manifest", (set) => {
    const content = read(`calibration/${set.file}`);
    expect(hashBytes(content)).toBe(set.sha256);
    const texts = content
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as { text: string }).text);
    expect(texts).toHaveLength(set.documents);
    const tokens = texts.map(count);
    expect(tokens.reduce((sum, n) => sum + n, 0)).toBe(set.tokens);
    expect(Math.min(...tokens)).toBeGreaterThan(manifest.window);
  });

  it("was drawn with seeds that training never used", () => {
    const seeds = [...manifest.trainingSeeds, ...manifest.sets.map(({ seed }) => seed)];
    expect(new Set(seeds).size).toBe(seeds.length);
  });

  it("has a demo prompt that fits the window and hides its answer", () => {
    const prompt = read("calibration/demo-prompt.txt");
    expect(hashBytes(prompt)).toBe(manifest.prompt.sha256);
    expect(count(prompt)).toBe(manifest.prompt.tokens);
    expect(prompt.split(`is: ${manifest.prompt.answer}.`)).toHaveLength(2);
    expect(prompt.endsWith("mentioned in the provided text is")).toBe(true);
  });
});

describe("the demo tokenizer", () => {
  it("puts one <|bos|> first, and takes numbers and names apart", () => {
    expect(tokenizer.encode("VAR QX = 407").tokens).toEqual([
      "<|bos|>",
      "VAR",
      "Ġ",
      "Q",
      "X",
      "Ġ=",
      "Ġ",
      "4",
      "0",
      "7",
    ]);
  });

  it("splits a prompt and its continuation as it splits the whole", () => {
    const prompt = "they are: ";
    const whole = tokenizer.encode(`${prompt}ABCDE FGHIJ`).ids;
    const start = tokenizer.encode(prompt).ids;
    expect(whole.slice(0, start.length)).toEqual(start);
  });

  it("gives back the text of the corpus", () => {
    for (const { text } of [makeDocuments({ seed: 77, tokens: 300 }).next().value]) {
      expect(tokenizer.decode(tokenizer.encode(text).ids, { skip_special_tokens: true })).toBe(text);
    }
  });
});
