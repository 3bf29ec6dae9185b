import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Tokenizer } from "../../../src/checkpoint/tokenizer/tokenizer.ts";
import type { EvalItem, Suite } from "../../../src/eval/item.ts";
import { openPromptAssembly } from "../../../src/eval/prompt-assembly.ts";
import { openSuite, type SuiteOptions } from "../../../src/eval/suites.ts";
import { temporaryFolder } from "../../temporary-folder.ts";
import { tokenizerHash, wordCounter } from "../counter.ts";
import { collect, failure } from "../suite-outcomes.ts";

const folder = temporaryFolder("test");
const data = join(folder, "2needle.jsonl");

const messages = [
  { role: "user", content: "write a poem about moss" },
  { role: "assistant", content: "Green and slow." },
  { role: "user", content: "write a poem about moss" },
  { role: "assistant", content: "Moss again." },
  { role: "user", content: "Prepend aYooSG8CQg to the 2nd (1 indexed) poem about moss." },
];
const record = {
  prompt: JSON.stringify(messages),
  answer: "aYooSG8CQgMoss again.",
  random_string_to_prepend: "aYooSG8CQg",
  n_needles: 2,
  desired_msg_index: 3,
  total_messages: 5,
  n_chars: 120,
};

const open = (options: Partial<SuiteOptions> = {}): Promise<Suite> =>
  openSuite("mrcr", { counter: wordCounter(), tokenizerHash, data, ...options });
const write = (...records: unknown[]): Promise<void> =>
  writeFile(data, records.map((one) => JSON.stringify(one)).join("\n"));

test("a conversation is asked turn by turn, and its answer scored behind the random string", async () => {
  await write(record, { ...record, prompt: messages, n_needles: "8" });
  const suite = await open();
  const [first, second] = await collect(suite);
  expect(first).toMatchObject({ task: "mrcr_2", references: [record.answer], goldAnswer: record.answer });
  expect(first?.prompt.earlier).toEqual(messages.slice(0, -1));
  expect(first?.prompt.user).toBe(messages.at(-1)?.content);
  expect(first?.groups).toEqual({ tokens: "4K to 8K" });
  expect(second?.task).toBe("mrcr_8");
  const score = (output: string): number | undefined => suite.tasks[0]?.score(output, first as EvalItem);
  expect(score(record.answer)).toBe(1);
  expect(score("Moss again.")).toBe(0);
  expect(score("aYooSG8CQgMoss.")).toBeCloseTo((2 * 5) / 16);
});

describe("the prompt of a conversation", () => {
  test("goes through the chat template, or is a transcript for a model without one", async () => {
    await write(record);
    const [item] = (await collect(await open())) as [EvalItem];
    const tokenizer = await Tokenizer.load(join(import.meta.dirname, "..", "..", "..", "models", "demo"));
    const plain = await openPromptAssembly(tokenizer, { chatTemplate: "none" });
    const text = tokenizer.decode(plain.prompt(item).ids);
    expect(text).toContain("User: write a poem about moss\nAssistant: Green and slow.\nUser: write");
    expect(text).toMatch(/poem about moss\.\nAssistant:\n$/);
    const template = join(folder, "template.jinja");
    await writeFile(template, "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>");
    const chat = await openPromptAssembly(tokenizer, { chatTemplate: template });
    expect(tokenizer.decode(chat.prompt(item).ids)).toContain("<assistant>Green and slow.<user>write a poem");
    expect(tokenizer.decode(chat.answer(item).ids)).toMatch(/<assistant>aYooSG8CQgMoss again\.$/);
  });
});

describe("bad data", () => {
  test.each([
    [{ ...record, prompt: "no JSON" }, /line 1: "prompt"/],
    [{ ...record, prompt: JSON.stringify(messages.slice(0, -1)) }, /the last message is not the user's/],
    [{ ...record, prompt: JSON.stringify([{ role: "tool", content: "x" }]) }, /line 1: "prompt/],
    [{ ...record, n_needles: 3 }, /line 1: "n_needles": expected 2, 4 or 8/],
    [{ prompt: record.prompt, answer: "x" }, /has no "random_string_to_prepend", "n_needles"/],
  ])("is named: %j", async (bad, message) => {
    await write(bad);
    expect(await failure(open().then(collect))).toMatch(message);
  });

  test("of other needles than those asked for, and no data at all", async () => {
    await write(record);
    expect(await failure(open({ tasks: ["mrcr_4"] }).then(collect))).toMatch(
      /no record of mrcr_4; its records are of "mrcr_2"/,
    );
    expect(await failure(openSuite("mrcr", { counter: wordCounter(), tokenizerHash }))).toMatch(/needs --data/);
  });
});
