import { describe, expect, it } from "vitest";
import { Random } from "../../src/base/random.ts";
import { joinWithAnd, makeNeedlePart, noiseLine } from "../../src/eval/ruler/templates.ts";
import { makeCommonWords, makeFrequentWords } from "../../tools/train-demo/corpus/common-words.ts";
import { type Haystack, makeNiah } from "../../tools/train-demo/corpus/niah.ts";
import { makeVariableTracking } from "../../tools/train-demo/corpus/variable-tracking.ts";

const haystacks: Haystack[] = ["essay", "noise", "needle"];

describe("needles in a haystack", () => {
  it.each(haystacks)("hides the value of every key asked for, once, in a haystack of %s", (haystack) => {
    for (let seed = 0; seed < 30; seed++) {
      const task = makeNiah(new Random(seed), { haystack, units: 30, keys: 4, queries: 2 });
      expect(task.queries).toHaveLength(2);
      task.queries.forEach((key, i) => {
        const sentence = `One of the special magic numbers for ${key} is: ${task.outputs[i]}.`;
        expect(task.input.split(sentence)).toHaveLength(2);
        expect(task.input.split(`numbers for ${key} is:`)).toHaveLength(2);
      });
    }
  });

  it("speaks of one answer in the singular and of several in the plural", () => {
    const one = makeNiah(new Random(1), { haystack: "noise", units: 3 });
    const [key] = one.queries;
    expect(one.input).toMatch(
      /^A special magic number is hidden within the following text\. Make sure to memorize it\./,
    );
    expect(one.input).toContain("I will quiz you about the number afterwards.\n");
    expect(one.input).toMatch(
      new RegExp(`\nWhat is the special magic number for ${key} mentioned in the provided text\\?$`),
    );
    expect(one.answerPrefix).toBe(` The special magic number for ${key} mentioned in the provided text is`);
    const several = makeNiah(new Random(1), { haystack: "noise", units: 3, values: 2 });
    expect(several.input).toMatch(/^Some special magic numbers are hidden/);
    expect(several.input).toContain("What are all the special magic numbers for");
    expect(several.answerPrefix).toMatch(/mentioned in the provided text are$/);
    expect(several.outputs).toHaveLength(2);
  });

  it.each([0, 0.25, 0.5, 1])("puts the needle at depth %d", (depth) => {
    const task = makeNiah(new Random(4), { haystack: "noise", units: 40, depth });
    const lines = task.input.split("\n").slice(1, -1);
    expect(lines.findIndex((line) => line.startsWith("One of"))).toBe(depth * 40);
    expect(lines).toHaveLength(41);
  });

  it("makes values of each type", () => {
    const random = new Random(9);
    const word = () => "a-word";
    for (let i = 0; i < 50; i++) {
      expect(makeNeedlePart(random, "numbers", word)).toMatch(/^[1-9]\d{6}$/);
      expect(makeNeedlePart(random, "words", word)).toBe("a-word");
      expect(makeNeedlePart(random, "uuids", word)).toMatch(
        /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
      );
    }
  });

  it("joins keys as RULER does", () => {
    expect(joinWithAnd(["a"])).toBe("a");
    expect(joinWithAnd(["a", "b"])).toBe("a, and b");
    expect(joinWithAnd(["a", "b", "c"])).toBe("a, b, and c");
  });
});

describe("variable tracking", () => {
  it("assigns the value along every chain, in order of the text", () => {
    for (let seed = 0; seed < 30; seed++) {
      const { input, chains, outputs, value } = makeVariableTracking(new Random(seed), { units: 20, chains: 2 });
      expect(chains).toHaveLength(2);
      expect(outputs).toEqual(chains[0]);
      expect(new Set(chains.flat()).size).toBe(10);
      for (const chain of chains) {
        let at = input.indexOf(`VAR ${chain[0]} = `);
        expect(at).toBeGreaterThan(0);
        chain.slice(1).forEach((name, i) => {
          const next = input.indexOf(`VAR ${name} = VAR ${chain[i]} `);
          expect(next).toBeGreaterThan(at);
          at = next;
        });
      }
      expect(input).toContain(`VAR ${outputs[0]} = ${value}\n`);
      expect(input.match(new RegExp(` = ${value}\n`, "g"))).toHaveLength(1);
    }
  });

  it("follows the template and counts the names", () => {
    const task = makeVariableTracking(new Random(2), { units: 5 });
    expect(task.outputs).toHaveLength(5);
    expect(task.input).toMatch(
      /^Memorize and track the chain\(s\) of variable assignment hidden in the following text\.\n\n/,
    );
    expect(task.input.split(noiseLine)).toHaveLength(6);
    expect(task.answerPrefix).toBe(
      ` Answer: According to the chain(s) of variable assignment in the text above, 5 variables are assigned the value ${task.value}, they are: `,
    );
  });

  it("can show a solved example first", () => {
    const task = makeVariableTracking(new Random(2), { units: 5, example: true });
    expect(task.input.match(/Memorize and track/g)).toHaveLength(2);
    expect(task.input.match(/they are: /g)).toHaveLength(1);
  });
});

describe("word counts", () => {
  it("asks for the words that really are the most common", () => {
    const task = makeCommonWords(new Random(3), { common: 4, commonCount: 6, others: 30, otherCount: 2 });
    const list = task.input.split("\n")[1] ?? "";
    const counts = new Map<string, number>();
    for (const [, word = ""] of list.matchAll(/\d+\. (\w+)/g)) counts.set(word, (counts.get(word) ?? 0) + 1);
    expect(counts.size).toBe(34);
    const common = [...counts].filter(([, count]) => count === 6).map(([word]) => word);
    expect(task.outputs).toEqual(common);
    expect(task.answerPrefix).toContain("The top 4 words");
  });

  it("gives frequent words the frequencies of the law", () => {
    const task = makeFrequentWords(new Random(3), { length: 1000, vocabulary: 20 });
    const counts = task.outputs.map((word) => task.input.split(word).length - 1);
    expect(counts).toEqual([151, 67, 37]);
  });
});

describe("tasks are seeded", () => {
  it("gives the same task for the same seed and another for another", () => {
    const make = (seed: number) => [
      makeNiah(new Random(seed), { haystack: "essay", units: 20 }),
      makeVariableTracking(new Random(seed), { units: 8 }),
      makeCommonWords(new Random(seed), { others: 20 }),
      makeFrequentWords(new Random(seed), { length: 100, vocabulary: 10 }),
    ];
    expect(make(11)).toEqual(make(11));
    make(12).forEach((task, i) => {
      expect(task.input).not.toBe(make(11)[i]?.input);
    });
  });
});
