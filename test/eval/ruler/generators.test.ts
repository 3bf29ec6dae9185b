import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Tokenizer } from "../../../src/checkpoint/tokenizer/tokenizer.ts";
import { findLargest } from "../../../src/eval/generated/fitting.ts";
import { officialSample, officialStart } from "../../../src/eval/generated/official-steps.ts";
import type { EvalItem, Suite } from "../../../src/eval/item.ts";
import { readEssays } from "../../../src/eval/ruler/essays.ts";
import { depths } from "../../../src/eval/ruler/niah.ts";
import { adjectives, nouns, verbs } from "../../../src/eval/ruler/wonderwords.ts";
import { zetaCounts } from "../../../src/eval/ruler/word-lists.ts";
import { openSuite, type SuiteName, type SuiteOptions } from "../../../src/eval/suites.ts";
import { temporaryFolder } from "../../temporary-folder.ts";
import { tokenizerHash, wordCounter } from "../counter.ts";
import { collect, failure } from "../suite-outcomes.ts";

const demo = join(import.meta.dirname, "..", "..", "..", "models", "demo");

const folder = temporaryFolder("test");

const open = (name: SuiteName, options: Partial<SuiteOptions> = {}): Promise<Suite> =>
  openSuite(name, { counter: wordCounter(), tokenizerHash, lengths: [1024], samples: 3, ...options });

const promptOf = ({ prompt }: EvalItem): string => prompt.user + prompt.answerPrefix;

const essayText = Array.from({ length: 300 }, (_, i) => `Sentence number ${i} is about essay ${i % 7}!`).join("\n\n ");

const squad = {
  data: Array.from({ length: 4 }, (_, a) => ({
    title: `Article ${a}`,
    paragraphs: Array.from({ length: 6 }, (_, p) => ({
      context: `Paragraph ${p} of article ${a} says that the answer is gold${a}x${p}. ${"More words follow. ".repeat(5)}`,
      qas: [
        { question: "Impossible?", is_impossible: true, answers: [] },
        {
          question: `What does ${a}/${p} say?`,
          is_impossible: false,
          answers: [{ text: `gold${a}x${p}` }, { text: "it" }],
        },
      ],
    })),
  })),
};

const hotpot = Array.from({ length: 6 }, (_, i) => ({
  question: `Which is ${i}?`,
  answer: `Answer ${i}`,
  context: Array.from({ length: 10 }, (_, d) => [`Title ${i} ${d}`, [`Text ${i} ${d}. `, `Answer ${i}. `]]),
}));

async function dataFiles(): Promise<Pick<SuiteOptions, "essays" | "squad" | "hotpotqa">> {
  const paths = { essays: join(folder, "essays.txt"), squad: join(folder, "s.json"), hotpotqa: join(folder, "h.json") };
  await writeFile(paths.essays, essayText);
  await writeFile(paths.squad, JSON.stringify(squad));
  await writeFile(paths.hotpotqa, `\ufeff${JSON.stringify(hotpot)}`);
  return paths;
}

test("the word lists are wonderwords' own", () => {
  expect([nouns.length, adjectives.length, verbs.length]).toEqual([6782, 910, 1041]);
  expect(new Set([...nouns, ...adjectives, ...verbs]).size).toBe(8166);
  expect(nouns.every((word) => word === word.trim() && word !== "")).toBe(true);
});

test("RULER's constants", () => {
  const published =
    "0 3 5 8 10 13 15 18 21 23 26 28 31 33 36 38 41 44 46 49 51 54 56 59 62 64 67 69 72 74 77 79 82 85 87 90 92 95 97 100";
  expect(depths.join(" ")).toBe(published);
  expect(zetaCounts(1000, 5)).toEqual([607, 151, 67, 37, 24]);
  expect(zetaCounts(5000, 4)).toEqual([3039, 759, 337, 189]);
  expect(zetaCounts(20000, 3)).toEqual([12158, 3039, 1350]);
});

test("the search finds the largest number of units that fits", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 0, max: 400 }),
      fc.integer({ min: 0, max: 90_000 }),
      (per, base, room) => {
        const count = (units: number): number =>
          base + per * units + (units % 3 === 0 ? 1 : 0) + Math.floor(Math.sqrt(units));
        const limit = count(1) + room;
        const { units, tokens } = findLargest(count, { units: 1, tokens: count(1) }, limit);
        expect(tokens).toBe(count(units));
        expect(tokens).toBeLessThanOrEqual(limit);
        // Not monotone by the last token: one unit more may fit where per = 1.
        expect(count(units + (per === 1 ? 3 : 1))).toBeGreaterThan(limit - 1);
      },
    ),
  );
});

test("a search for a million tokens ends near its limit after a few looks", () => {
  let looks = 0;
  const count = (units: number): number => {
    looks++;
    return 93 + 21 * units + Math.floor(Math.sqrt(units));
  };
  const { tokens } = findLargest(count, { units: 1, tokens: 114 }, 1_048_448);
  expect(tokens).toBeLessThanOrEqual(1_048_448);
  expect(tokens).toBeGreaterThan(0.995 * 1_048_448);
  expect(looks).toBeLessThanOrEqual(5);
});

describe("generated prompts", () => {
  test("hold their gold, end with the prefix, and fill their length, for all 13 tasks", async () => {
    const lengths = [2048, 4096];
    const counter = wordCounter();
    const suite = await open("ruler", { ...(await dataFiles()), lengths, counter });
    expect(suite.skipped).toEqual([]);
    expect(suite.notes).toEqual([expect.stringContaining("text of your own")]);
    expect((await open("ruler", { ...(await dataFiles()), lengths, samples: 7, tasks: ["qa_2"] })).notes).toEqual([
      "qa_2 has 6 questions, fewer than the 7 samples asked for",
    ]);
    const items = await collect(suite);
    expect(items.length).toBe(13 * 2 * 3);
    expect(suite.total).toBe(items.length);
    for (const item of items) {
      const task = suite.tasks.find(({ name }) => name === item.task);
      const text = item.prompt.user;
      for (const gold of item.references) expect(text.includes(gold) || item.task === "qa_1").toBe(true);
      expect(item.prompt.answerPrefix).toMatch(/^ (The special magic|Answer:)/);
      const tokens = counter.encode(promptOf(item)).length + (task?.maxNewTokens ?? 0);
      expect(tokens).toBeLessThanOrEqual(item.length ?? 0);
      const share = tokens / (item.length ?? 1);
      // A UUID needle or a document is a large unit; HotpotQA's first documents may not be enough of them.
      expect(share, `${item.task} ${item.length}`).toBeGreaterThan(/multikey_3|qa_/.test(item.task) ? 0.9 : 0.95);
      expect(task?.score(promptOf(item).slice(-200) + item.goldAnswer, item), item.task).toBe(1);
      expect(task?.score("nothing right", item)).toBe(0);
    }
  });

  test("are the same bytes for the same seed, others for another one, and a smaller set begins a larger one", async () => {
    const [a, b, c, d] = await Promise.all([
      open("ruler-core").then(collect),
      open("ruler-core").then(collect),
      open("ruler-core", { seed: 7 }).then(collect),
      open("ruler-core", { samples: 1 }).then(collect),
    ]);
    expect(b).toEqual(a);
    expect(c.map(promptOf)).not.toContain(promptOf(a[0] as EvalItem));
    expect(d).toEqual(a.filter(({ id }) => id === "0"));
    expect(new Set(a.map(promptOf)).size).toBe(a.length);
  });

  test("have their needles at all depths", async () => {
    const essays = join(folder, "PaulGrahamEssays.json");
    await writeFile(essays, JSON.stringify({ text: essayText }));
    const options = { essays, samples: 150, tasks: ["niah_single_2"] };
    const suite = await open("ruler", options);
    expect(suite.notes).toEqual([]);
    const tenths = new Array<number>(10).fill(0);
    for (const { depth } of await collect(suite)) {
      const tenth = Math.min(9, Math.floor((depth?.share ?? -1) * 10));
      tenths[tenth] = (tenths[tenth] ?? 0) + 1;
    }
    // 15 each, within what chance allows.
    expect(Math.min(...tenths)).toBeGreaterThan(3);
    expect(Math.max(...tenths)).toBeLessThan(35);
  });

  test("have the blank of RULER's empty pieces around needles before and behind all sentences", async () => {
    const path = join(folder, "essays.txt");
    await writeFile(path, "\ufeffOne two. Three four.\u0085Five six.");
    const essays = await readEssays(path);
    expect(essays.hide(["N."], [0], 4)).toBe(" N. One two. Three four.");
    expect(essays.hide(["N."], [100], 4)).toBe("One two. Three four. N. ");
    expect(essays.hide(["N.", "M."], [50, 51], 4)).toBe("One two. N.  M. Three four.");
    expect(essays.hide(["N."], [50], 4)).toBe("One two. N. Three four.");
  });

  test("follow RULER's rules of counts", async () => {
    const items = await collect(
      await open("ruler-core", { lengths: [4096], samples: 1, tasks: ["cwe", "vt", "niah_multikey_2"] }),
    );
    const [niah, vt, cwe] = items.map(({ prompt }) => prompt.user) as [string, string, string];
    const list = cwe.slice(cwe.lastIndexOf("Below is")).match(/\d+\. (\D+?)(?= \d|\n)/g) ?? [];
    const counts = new Map<string, number>();
    for (const word of list.map((entry) => entry.replace(/^\d+\. /, ""))) counts.set(word, (counts.get(word) ?? 0) + 1);
    expect([...counts.values()].filter((count) => count === 30).length).toBe(10);
    expect([...counts.values()].filter((count) => count !== 30 && count !== 3)).toEqual([]);
    expect(
      /^Below is .*\n1\. .*\nQuestion: .* Answer: The top 10 words .* are: 1\. .* 10\. .*\nBelow is/.test(cwe),
    ).toBe(true);
    const main = vt.slice(vt.lastIndexOf("Memorize and track"));
    expect(main.match(/^VAR [A-Z]{5} = (\d{5}|VAR [A-Z]{5} )$/gm)?.length).toBe(5);
    expect(vt.slice(0, vt.lastIndexOf("Memorize")).match(/VAR [A-Z]{3} = (\d{5}|VAR [A-Z]{3} )/g)?.length).toBe(5);
    expect(vt).not.toContain("12345");
    expect(niah).toMatch(/^A special magic number is hidden/);
    expect(niah.match(/^One of the special magic numbers for \S.* is: \d{7}\.$/gm)?.length).toBe(
      niah.split("\n").length - 2,
    );
  });

  test("fit the demo model's window of 1024 tokens, and half of it, with its own tokenizer", async () => {
    const tokenizer = await Tokenizer.load(demo);
    const counter = {
      encode: (text: string) => tokenizer.encodePlain(text),
      decode: (ids: readonly number[]) => tokenizer.decode(ids),
    };
    const suite = await open("ruler-core", { counter, wrapperTokens: 1, lengths: [512, 1024], samples: 4 });
    expect(suite.notes.join("\n")).toMatch(/cwe does not fit into 512 tokens as it is: it has no solved example and/);
    for (const item of await collect(suite)) {
      const budget = suite.tasks.find(({ name }) => name === item.task)?.maxNewTokens ?? 0;
      const tokens = tokenizer.encode(promptOf(item)).length + budget;
      expect(tokens).toBeLessThanOrEqual(item.length ?? 0);
      expect(tokens, `${item.task}/${item.length}`).toBeGreaterThan(0.8 * (item.length ?? 0));
    }
  });
});

describe("--steps official", () => {
  const halving = { kind: "halving", step: 10, probe: 10, reach: 3 } as const;

  test("searches by halves from the first step up, and a sample that is too long loses whole steps", () => {
    const count = (units: number): number => 100 + 7 * units;
    const start = officialStart(count, halving, { limit: 1000, total: 1032 });
    expect(start).toBe(128);
    expect(officialSample(count, start, halving, 1, 1000)).toEqual({ units: 128, tokens: 996 });
    // One token more than there is room for costs ten units.
    expect(officialSample((units) => count(units) + 5, start, halving, 1, 1000)).toEqual({ units: 118, tokens: 931 });
    // RULER's own loop would not end below one step.
    expect(officialSample((units) => count(units) + 850, 10, halving, 3, 1000)).toEqual({ units: 3, tokens: 971 });
    expect(officialSample((units) => count(units) + 950, 10, halving, 3, 1000)).toBeUndefined();
    // Nothing but the first step is tried where even that is too much.
    expect(officialStart((units) => 2000 * units, halving, { limit: 1000, total: 1032 })).toBe(10);
  });

  test("climbs from a sixth of the room in steps of a 32nd, and steps back once", () => {
    const climbing = { kind: "climbing" } as const;
    const start = officialStart((units) => 2 * units, climbing, { limit: 3200, total: 3250 });
    expect(start).toBe(533 + 10 * 100);
    expect(officialSample((units) => 2 * units + 200, start, climbing, 27, 3200)).toEqual({
      units: 1433,
      tokens: 3066,
    });
  });

  test("fills less than the usual steps, the same bytes for the same seed, and says so", async () => {
    const tokenizer = await Tokenizer.load(demo);
    // Needles of more and fewer tokens are what makes samples too long.
    const counter = { encode: (text: string) => tokenizer.encodePlain(text), decode: () => "" };
    const { essays = "" } = await dataFiles();
    await writeFile(essays, essayText.repeat(3));
    const tasks = ["niah_single_2", "niah_multiquery", "niah_multikey_2", "fwe", "vt"];
    const options = { essays, tasks, counter, lengths: [4096], samples: 6 };
    const fine = await open("ruler", options).then(collect);
    const suite = await open("ruler", { ...options, steps: "official" });
    expect(suite.notes).toContainEqual(expect.stringContaining("--steps official"));
    const items = await collect(suite);
    expect(await open("ruler", { ...options, steps: "official" }).then(collect)).toEqual(items);
    const mean = (of: readonly EvalItem[]): number => of.reduce((sum, { fill = 0 }) => sum + fill, 0) / of.length;
    expect(Math.max(...items.map(({ fill = 2 }) => fill))).toBeLessThanOrEqual(1);
    expect(mean(fine)).toBeGreaterThan(0.96);
    expect(mean(items)).toBeLessThan(mean(fine) - 0.03);
    expect(mean(items)).toBeGreaterThan(0.7);
    expect(Math.min(...items.map(({ fill = 2 }) => fill))).toBeLessThan(0.85);
    // A set of the one kind is not taken for the other.
    const cacheFolder = join(folder, "cache");
    const vt = { ...options, tasks: ["vt"], cacheFolder };
    const [first] = await open("ruler", vt).then(collect);
    const [other] = await open("ruler", { ...vt, steps: "official" }).then(collect);
    expect(other?.prompt.user).not.toBe(first?.prompt.user);
  });
});

describe("data that ends", () => {
  test("cwe goes on with RULER's english_words.json, or says how full it is", async () => {
    const options = { tasks: ["cwe"], lengths: [163_840], samples: 1 };
    const suite = await open("ruler-core", options);
    expect(suite.notes).toEqual([
      expect.stringMatching(/^RULER's cwe fills \d+ of the \d+ tokens that 163840 has .*give --english-words FILE$/),
    ]);
    const [short] = await collect(suite);
    expect(short?.fill).toBeLessThan(0.9);
    const englishWords = join(folder, "english_words.json");
    const words = Array.from({ length: 40_000 }, (_, i) => [String(i), `word${i}`]);
    await writeFile(englishWords, JSON.stringify(Object.fromEntries(words)));
    const whole = await open("ruler-core", { ...options, englishWords });
    expect(whole.notes).toEqual([]);
    const [full] = await collect(whole);
    expect(full?.fill).toBeGreaterThan(0.95);
    expect(full?.prompt.user).toMatch(/ word\d+ /);
    // Where the pool is enough the words are its own.
    const [usual] = await open("ruler-core", { tasks: ["cwe"], samples: 1, englishWords }).then(collect);
    expect(usual?.prompt.user).toBe(
      ((await open("ruler-core", { tasks: ["cwe"], samples: 1 }).then(collect))[0] as EvalItem).prompt.user,
    );
    await writeFile(englishWords, "[1]");
    expect(await failure(open("ruler-core", { ...options, englishWords }))).toMatch(/^English words ".*": /);
  });

  test("a question whose own documents are too long is found before the first item", async () => {
    const { hotpotqa = "" } = await dataFiles();
    const long = structuredClone(hotpot);
    (long[3] as (typeof hotpot)[number]).context[2] = ["Long", ["word ".repeat(600)]];
    await writeFile(hotpotqa, JSON.stringify(long));
    const message = await failure(open("ruler", { hotpotqa, tasks: ["qa_2"], lengths: [512], samples: 6 }));
    expect(message).toMatch(
      /^1 of the 6 questions of RULER's qa_2 do not fit into 512 tokens.* question 3, the longest needs (\d+) \| give --samples 3, or --lengths of \1 or more/,
    );
    const needed = Number(/needs (\d+)/.exec(message)?.[1]);
    const lengths = [needed];
    expect((await open("ruler", { hotpotqa, tasks: ["qa_2"], lengths, samples: 6 }).then(collect)).length).toBe(6);
    expect((await open("ruler", { hotpotqa, tasks: ["qa_2"], lengths: [512], samples: 3 }).then(collect)).length).toBe(
      3,
    );
  });

  test("a larger budget takes its room from the window, not from the length", async () => {
    const counter = wordCounter();
    const room = async (window: number): Promise<number> => {
      const budget = { tasks: new Map(), thought: 300 };
      const [item] = await open("ruler-core", { counter, tasks: ["vt"], samples: 1, window, budget }).then(collect);
      return counter.encode(promptOf(item as EvalItem)).length;
    };
    expect(await room(2048)).toBeGreaterThan(1024 - 30 - 40);
    expect(await room(1024)).toBeLessThanOrEqual(1024 - 330);
    const budget = { tasks: new Map([["vt", 900]]) };
    expect(await failure(open("ruler-core", { tasks: ["vt"], window: 1024, budget }))).toMatch(
      /^RULER's vt does not fit: beside its answer the model's window leaves 124 tokens/,
    );
  });
});

describe("a set on disk", () => {
  test("gives the same items without counting a token, and grows", async () => {
    const cacheFolder = join(folder, "cache");
    const first = await collect(await open("ruler-core", { cacheFolder }));
    const counter = wordCounter();
    const suite = await open("ruler-core", { cacheFolder, counter });
    counter.calls = 0;
    expect(await collect(suite)).toEqual(first);
    expect(counter.calls).toBe(0);
    expect((await collect(await open("ruler-core", { cacheFolder, samples: 5 }))).filter(({ id }) => id < "3")).toEqual(
      first,
    );
    expect((await readdir(cacheFolder)).length).toBe(6);
    await open("ruler-core", { cacheFolder, seed: 1, samples: 1 }).then(collect);
    expect((await readdir(cacheFolder)).length).toBe(12);
  });

  test("is kept when the caller stops early, and not believed when it does not fit", async () => {
    const cacheFolder = join(folder, "cache");
    const options = { cacheFolder, tasks: ["fwe"], samples: 9 };
    for await (const { id } of (await open("ruler-core", options)).items()) if (id === "1") break;
    const [name = ""] = await readdir(cacheFolder);
    const content = await readFile(join(cacheFolder, name), "utf8");
    expect(JSON.parse(content).samples.length).toBe(2);
    const whole = await collect(await open("ruler-core", { ...options, cacheFolder: join(folder, "other") }));
    for (const wrong of ["{", content.replace(/"hash":"./, '"hash":"x'), content.replace(/"units":\d+/, '"units":5')]) {
      await writeFile(join(cacheFolder, name), wrong);
      expect(await collect(await open("ruler-core", options))).toEqual(whole);
      expect(JSON.parse(await readFile(join(cacheFolder, name), "utf8")).samples.length).toBe(9);
    }
    expect(await failure(open("ruler-core", { cacheFolder: join(cacheFolder, name) }))).toMatch(
      /^Cannot use cache folder ".*json": there is a file of that name/,
    );
  });
});

describe("what cannot be made is said:", () => {
  test("tasks without their data are skipped by name", async () => {
    const { skipped, tasks } = await open("ruler");
    expect(tasks.map(({ name }) => name)).toEqual([
      "niah_single_1",
      "niah_multikey_2",
      "niah_multikey_3",
      "vt",
      "cwe",
      "fwe",
    ]);
    expect(skipped.map(({ task }) => task)).toEqual([
      "niah_single_2",
      "niah_single_3",
      "niah_multikey_1",
      "niah_multivalue",
      "niah_multiquery",
      "qa_1",
      "qa_2",
    ]);
    expect(skipped[0]?.reason).toMatch(/--essays/);
    expect(await failure(open("ruler", { tasks: ["qa_1"] }))).toMatch(/qa_1 needs --squad/);
  });

  test("a length that is too short, with one that is not", async () => {
    expect(await failure(open("ruler-core", { lengths: [128], tasks: ["niah_single_1"] }))).toMatch(
      /^RULER's niah_single_1 does not fit into 128 tokens: its smallest prompt has \d+, its answer 128 \| give --lengths of \d+ or more/,
    );
    expect(await failure(open("ruler-core", { lengths: [180], tasks: ["vt"] }))).toMatch(/vt does not fit into 180/);
  });

  test("counts and names that make no sense", async () => {
    expect(await failure(open("ruler-core", { samples: 0 }))).toMatch(/--samples is 0/);
    expect(await failure(open("ruler-core", { lengths: [1024, 1024] }))).toMatch(/a length twice/);
    expect(await failure(open("ruler-core", { lengths: [0.5] }))).toMatch(/--lengths is 0.5/);
    expect(await failure(open("ruler-core", { tasks: ["qa_9"] }))).toMatch(
      /no task "qa_9" \| its tasks are niah_single_1/,
    );
    expect(await failure(open("rulers" as SuiteName))).toMatch(/no suite "rulers" \| suites are ruler-core/);
  });

  test("data of another kind", async () => {
    const path = join(folder, "x.json");
    await writeFile(path, '{"data":[{"paragraphs":[{"context":3}]}]}');
    expect(await failure(open("ruler", { squad: path }))).toMatch(
      /SQuAD file ".*", record 1 \(line 1\): "paragraphs\[0\].context"/,
    );
    expect(await failure(open("ruler", { hotpotqa: path }))).toMatch(
      /HotpotQA file ".*", record 1 \(line 1\): "question"/,
    );
    const latin1 = join(folder, "x.txt");
    await writeFile(latin1, Buffer.from([0x22, 0xff, 0x22]));
    expect(await failure(open("ruler", { essays: latin1 }))).toMatch(/File ".*x.txt" is not valid UTF-8/);
    expect(await failure(open("ruler", { essays: join(folder, "none") }))).toMatch(/no such file/);
    await writeFile(path, '[{"text":"a"},{"txt":"b"}]');
    expect(await failure(open("ruler", { essays: path }))).toMatch(/^File ".*", record 2 \(line 1\): "text": /);
    await writeFile(path, '{"text":" "}');
    expect(await failure(open("ruler", { essays: path }))).toMatch(/hold no text/);
  });
});

describe("prepared records", () => {
  const write = async (name: string, records: object[]): Promise<void> => {
    const path = join(folder, name);
    const { mkdir } = await import("node:fs/promises");
    await mkdir(join(path, ".."), { recursive: true });
    await writeFile(path, records.map((record) => JSON.stringify(record)).join("\n"));
  };

  test("of NVIDIA, NeMo-Skills and lm-eval are taken as they are", async () => {
    const nvidia = {
      index: 0,
      input: "IN",
      outputs: ["1", "2"],
      length: 230,
      answer_prefix: " Answer: are: ",
      token_position_answer: 50,
    };
    await write("4096/data/vt/validation.jsonl", [nvidia, { ...nvidia, input: "IN2" }]);
    const skills = {
      index: 0,
      question: "Q",
      expected_answer: ["7"],
      length: 300,
      generation: "The special magic number for x is",
    };
    await write("ruler.8192/niah_single_1/test.jsonl", [skills]);
    await write("lm/ruler_qa_squad.jsonl", [
      { input: "L", outputs: ["g", "h"], max_length: 4096, gen_prefix: " Answer:" },
    ]);
    const suite = await open("ruler", { data: folder, lengths: [4096, 8192] });
    const items = await collect(suite);
    expect(items.map(({ task, length, id }) => `${task}/${length}/${id}`)).toEqual([
      "vt/4096/0",
      "vt/4096/1",
      "qa_1/4096/0",
      "niah_single_1/8192/0",
    ]);
    const [vt, , qa, niah] = items as [EvalItem, EvalItem, EvalItem, EvalItem];
    expect(vt).toMatchObject({
      prompt: { user: "IN", answerPrefix: " Answer: are: " },
      references: ["1", "2"],
      goldAnswer: "1 2",
    });
    expect(vt.depth).toEqual({ tokens: 50, share: 0.25 });
    expect(qa).toMatchObject({ goldAnswer: " g", references: ["g", "h"] });
    expect(niah.prompt.answerPrefix).toBe(" The special magic number for x is");
    expect(suite.skipped.length).toBe(10);
  });

  test("have the gold answers and prompts of the generated samples that they are", async () => {
    const generated = await collect(await open("ruler", { ...(await dataFiles()), lengths: [4096], samples: 1 }));
    const data = join(folder, "data");
    for (const { task, references, prompt } of generated) {
      const record = { index: 0, input: prompt.user, outputs: references, answer_prefix: prompt.answerPrefix };
      await write(`data/4096/data/${task}/validation.jsonl`, [record]);
    }
    const prepared = await collect(await open("ruler", { data, lengths: [4096] }));
    expect(prepared.length).toBe(13);
    for (const item of prepared) {
      const twin = generated.find(({ task }) => task === item.task);
      expect([item.goldAnswer, promptOf(item)], item.task).toEqual([twin?.goldAnswer, promptOf(twin as EvalItem)]);
    }
    const gold = (name: string): string | undefined => prepared.find(({ task }) => task === name)?.goldAnswer;
    expect(gold("vt")).toMatch(/^([A-Z]{5} ){4}[A-Z]{5}$/);
    expect(gold("cwe")).toMatch(/^ 1\. .* 2\. .* 10\. /);
    expect(gold("niah_multivalue")).toMatch(/^ \d{7}, \d{7}, \d{7}, and \d{7}$/);
  });

  test("that are bad are named or counted", async () => {
    await write("vt/validation.jsonl", [{ input: "x" }, { input: "x", outputs: [] }, { input: "x", outputs: "one" }]);
    expect(await failure(open("ruler", { data: folder }).then(collect))).toMatch(
      /vt\/validation.jsonl", line 1: has no "outputs"; its fields are "input" \| --skip-bad/,
    );
    const suite = await open("ruler", { data: folder, skipBad: true });
    expect((await collect(suite)).length).toBe(1);
    expect(suite.bad.map(({ problem }) => problem)).toEqual([
      expect.stringMatching(/no "outputs"/),
      "has no gold answer",
    ]);
    expect(await failure(open("ruler", { data: join(folder, "vt"), tasks: ["cwe"] }))).toMatch(/has no record of cwe/);
  });
});
