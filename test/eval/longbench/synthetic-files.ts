/** Files in LongBench's published formats, of synthetic text: the same bytes every time. */
import { writeFile } from "node:fs/promises";
import { zipSync } from "fflate";
import { Random } from "../../../src/base/random.ts";
import { longbenchTasks } from "../../../src/eval/longbench/tasks.ts";
import { makeSentences } from "../../../tools/train-demo/corpus/filler.ts";

/** Counts of the published 503 items. */
const lengths = { short: 180, medium: 215, long: 108 };
const EASY = 192;
const ITEMS = 503;
const domains = [
  "Single-Document QA",
  "Multi-Document QA",
  "Long In-context Learning",
  "Long-dialogue History Understanding",
  "Code Repository Understanding",
  "Long Structured Data Understanding",
];
const letters = ["A", "B", "C", "D"];

/** A record of LongBench v2; `sentences` of context, twice and thrice of it for medium and long ones. */
export function longbenchV2Records(sentences: number, items = ITEMS): Record<string, string>[] {
  const random = new Random(2);
  const classes = Object.entries(lengths).flatMap(([name, count], i) =>
    new Array<[string, number]>(count).fill([name, i + 1]),
  );
  return Array.from({ length: items }, (_, i) => {
    const [length = "short", times = 1] = classes[Math.floor((i * ITEMS) / items)] ?? [];
    const colours = random.sample(["red", "green", "blue", "amber", "violet", "white"], 4);
    const gold = random.integer(0, 3);
    const text = makeSentences(random, sentences * times);
    text.splice(random.integer(0, text.length), 0, `The door of house ${i} is ${colours[gold]}.`);
    return {
      _id: `${i.toString(16).padStart(4, "0")}${random.bits().toString(16)}`,
      domain: random.pick(domains),
      sub_domain: "Synthetic",
      difficulty: (i * EASY) % ITEMS < EASY ? "easy" : "hard",
      length,
      question: `Which colour has the door of house ${i}?`,
      choice_A: `It is ${colours[0]}.`,
      choice_B: `It is ${colours[1]}.`,
      choice_C: `It is ${colours[2]}.`,
      choice_D: `It is ${colours[3]}.`,
      answer: letters[gold] ?? "A",
      context: text.join(" "),
    };
  });
}

/** Writes `data.json` of LongBench v2. */
export async function writeLongbenchV2(path: string, sentences = 8, items = ITEMS): Promise<void> {
  await writeFile(
    path,
    `[\n${longbenchV2Records(sentences, items)
      .map((record) => JSON.stringify(record))
      .join(",\n")}\n]\n`,
  );
}

/** Records of one task of LongBench v1. */
export function longbenchRecords(task: string, language: string, items: number, sentences: number): object[] {
  const random = Random.forPart(1, task);
  const classes = ["Location", "Other location", "Person", "Number"];
  return Array.from({ length: items }, (_, i) => {
    const context = makeSentences(random, sentences).join(" ");
    const [input, answer] = question(task, i, random, classes);
    return {
      input,
      context: language === "zh" ? `这是第${i}段会议记录。${context}` : context,
      answers: [answer],
      length: random.pick([1200, 5000, 9000]),
      dataset: task,
      language,
      all_classes: task === "trec" || task === "lsht" ? classes : null,
      _id: `${task}-${i}`,
    };
  });
}

function question(task: string, i: number, random: Random, classes: readonly string[]): [string, string] {
  if (task === "trec" || task === "lsht") return [`Question: what is ${i}?\nType:`, random.pick(classes)];
  if (task === "passage_count") return ["", String(random.integer(2, 20))];
  if (task === "passage_retrieval_en") return ["An abstract.", `Paragraph ${random.integer(1, 30)}`];
  if (task === "passage_retrieval_zh") return ["一个摘要", `段落${random.integer(1, 30)}`];
  if (task === "lcc" || task === "repobench-p") return ["def f(x):\n", "    return x + 1"];
  if (task === "multifieldqa_zh" || task === "dureader" || task === "vcsum") return ["会议说了什么？", "经济发展"];
  return [`What is said about ${i}?`, `That it is ${random.integer(10, 99)}.`];
}

/** Writes `data.zip` of LongBench v1, with LongBench-E's files if asked for. */
export async function writeLongbenchZip(
  path: string,
  items: number,
  sentences = 8,
  edition: "v1" | "both" = "v1",
): Promise<void> {
  const files: Record<string, Uint8Array> = { "data/": new Uint8Array() };
  for (const { name, language, inE } of longbenchTasks({ codeRatio: "difflib" })) {
    const lines = longbenchRecords(name, language === "code" ? "python" : language, items, sentences).map((record) =>
      JSON.stringify(record),
    );
    const content = new Uint8Array(Buffer.from(`${lines.join("\n")}\n`));
    files[`data/${name}.jsonl`] = content;
    if (edition === "both" && inE) files[`data/${name}_e.jsonl`] = content;
  }
  await writeFile(path, zipSync(files, { mtime: "2026-01-01" }));
}
