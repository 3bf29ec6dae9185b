import { describe, expect, it } from "vitest";
import { Random } from "../../src/base/random.ts";
import {
  type CorpusDocument,
  type CorpusOptions,
  type DocumentKind,
  makeDocument,
  makeDocuments,
  trainingMix,
} from "../../tools/train-demo/corpus/documents.ts";
import { estimateTokens } from "../../tools/train-demo/corpus/token-estimate.ts";

const kinds = Object.keys(trainingMix) as DocumentKind[];

function take(count: number, options: CorpusOptions): CorpusDocument[] {
  const documents: CorpusDocument[] = [];
  for (const document of makeDocuments(options)) {
    documents.push(document);
    if (documents.length === count) break;
  }
  return documents;
}

const answersOf = ({ text, answers }: CorpusDocument) => answers.map(([start, end]) => text.slice(start, end));

describe("the stream of documents", () => {
  it("gives the same documents for the same seed", () => {
    const options: CorpusOptions = { seed: 7, tokens: [100, 900] };
    expect(take(60, options)).toEqual(take(60, options));
  });

  it("shares no document between seeds", () => {
    const one = new Set(take(200, { seed: 1, tokens: [100, 900] }).map(({ text }) => text));
    const other = take(200, { seed: 20001, tokens: [100, 900] });
    expect(other.filter(({ text }) => one.has(text))).toEqual([]);
  });

  it("keeps to the mix", () => {
    const documents = take(100, { seed: 3, tokens: 200, mix: { chain: 1, story: 1, pairs: 0 } });
    const found = documents.map(({ kind }) => kind);
    expect(new Set(found)).toEqual(new Set(["chain", "story"]));
    expect(found.filter((kind) => kind === "chain").length).toBeGreaterThan(30);
  });

  it("uses every kind of the training mix", () => {
    const found = new Set(take(400, { seed: 5, tokens: 150 }).map(({ kind }) => kind));
    expect([...found].sort()).toEqual([...kinds].sort());
  });
});

describe.each(kinds)("a document of kind %s", (kind) => {
  it.each([150, 400, 900])("is plain ASCII and about as long as asked: %i tokens", (tokens) => {
    for (let seed = 0; seed < 20; seed++) {
      const { text } = makeDocument(new Random(seed), kind, tokens);
      expect(text).toMatch(/^[\n -~]+$/);
      const length = estimateTokens(text);
      expect(length).toBeGreaterThan(tokens * 0.45);
      expect(length).toBeLessThan(tokens * 1.25 + 60);
    }
  });

  it("has answers that lie in order and in the text", () => {
    for (let seed = 0; seed < 20; seed++) {
      const document = makeDocument(new Random(seed), kind, 500);
      expect(document.answers.length).toBeGreaterThan(0);
      let last = 0;
      for (const [start, end] of document.answers) {
        expect(start).toBeGreaterThanOrEqual(last);
        expect(end).toBeGreaterThan(start);
        last = end;
      }
      expect(last).toBeLessThanOrEqual(document.text.length);
    }
  });
});

describe("answers can be known from what stands before them", () => {
  // Programs compute some of their numbers, and lists of counted words are numbered anew.
  const copied = kinds.filter((kind) => !["programs", "counts"].includes(kind));

  it.each(copied)("%s", (kind) => {
    for (let seed = 0; seed < 20; seed++) {
      const document = makeDocument(new Random(seed), kind, 600);
      document.answers.forEach(([start], i) => {
        const answer = answersOf(document)[i] ?? "";
        for (const word of answer.match(/[A-Za-z0-9]+/g) ?? []) {
          if (word === "and") continue;
          expect(document.text.slice(0, start)).toContain(word);
        }
      });
    }
  });

  it("programs print what their statements say", () => {
    for (let seed = 0; seed < 30; seed++) {
      const document = makeDocument(new Random(seed), "programs", 60);
      const program = document.text.split("\nIt prints:")[0] ?? "";
      const values = new Map<string, string>();
      const printed: string[] = [];
      for (const line of program.split("\n").slice(1)) {
        const assigned = /^let (\w+) = (.+)$/.exec(line);
        const print = /^(?:repeat (\d): )?print (\w+)$/.exec(line);
        if (assigned) {
          const [, name = "", expression = ""] = assigned;
          const sum = /^(\w+) \+ (\d+)$/.exec(expression);
          values.set(
            name,
            sum ? String(Number(values.get(sum[1] ?? "")) + Number(sum[2])) : expression.replaceAll('"', ""),
          );
        } else if (print) {
          for (let i = 0; i < Number(print[1] ?? 1); i++) printed.push(values.get(print[2] ?? "") ?? "?");
        } else throw new Error(`not a statement: ${line}`);
      }
      const expected = printed.map((word) => ` ${word}`);
      expect(answersOf(document).slice(0, expected.length)).toEqual(expected);
    }
  });
});
