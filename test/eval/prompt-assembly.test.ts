import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { InputError } from "../../src/base/errors.ts";
import { Tokenizer } from "../../src/checkpoint/tokenizer/tokenizer.ts";
import type { EvalItem } from "../../src/eval/item.ts";
import { deepseekTemplate, openPromptAssembly } from "../../src/eval/prompt-assembly.ts";
import { BOS, type ByteTokenizerOptions, writeByteTokenizer } from "../checkpoint/byte-tokenizer.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const folder = temporaryFolder("test");

const USER = 258;
const ASSISTANT = 259;
const template =
  "{{ bos_token }}<|user|>{{ messages[0].content }}<|assistant|>{% if enable_thinking %}<think>{% endif %}";

async function load(options: ByteTokenizerOptions = {}): Promise<Tokenizer> {
  await writeByteTokenizer(folder, options);
  return Tokenizer.load(folder);
}

const item = (over: Partial<EvalItem> = {}): EvalItem => ({
  id: "3",
  task: "vt",
  prompt: { user: "ab", answerPrefix: " c:", chat: true },
  references: ["d"],
  goldAnswer: " d",
  ...over,
});

const bytes = (text: string): number[] => [...Buffer.from(text)];
/** With the one merge of the tokenizer. */
const encoded = (text: string): number[] => text.split(/(th)/).flatMap((part) => (part === "th" ? [260] : bytes(part)));

async function failure(operation: () => unknown): Promise<string> {
  try {
    await operation();
  } catch (error) {
    if (error instanceof InputError) return `${error.message} | ${error.hint ?? ""}`;
    throw error;
  }
  throw new Error("nothing was thrown");
}

test("a prompt that was encoded ahead is not tokenized again, though its item is made anew", async () => {
  const tokenizer = await load();
  const assembly = await openPromptAssembly(tokenizer);
  const [plain, other] = [item(), item({ id: "4", prompt: { user: "ba", answerPrefix: " c:", chat: true } })];
  const wanted = [plain, other].map((one) => [assembly.prompt(one), assembly.answer(one)]);
  const encode = vi.spyOn(tokenizer, "encode");
  // Compared with two texts, each of which goes through all items.
  for (let text = 0; text < 2; text++) {
    const seen = [item(), structuredClone(other)].map((one) => [...Array.from(assembly.ahead(one))]);
    expect(seen).toEqual(wanted.map(([prompt]) => prompt?.ids));
  }
  expect(encode).toHaveBeenCalledTimes(2);
  const asked = [item(), structuredClone(other)].map((one) => [assembly.prompt(one), assembly.answer(one)]);
  expect(asked).toEqual(wanted);
  // The two gold answers.
  expect(encode).toHaveBeenCalledTimes(4);
});

test("a prompt is tokenized once for itself and its gold answer, which is tokenized with it", async () => {
  const tokenizer = await load();
  const assembly = await openPromptAssembly(tokenizer);
  const encode = vi.spyOn(tokenizer, "encode");
  const asked = item();
  const { ids } = assembly.prompt(asked);
  expect(assembly.answer(asked).ids.slice(0, ids.length)).toEqual(ids);
  expect(encode).toHaveBeenCalledTimes(2);
  // Nobody who changes the ids changes the next answer.
  ids.length = 0;
  expect(assembly.prompt(asked).ids.length).toBeGreaterThan(0);
});

describe("a prompt", () => {
  test.each([true, false])("of a base model is BOS, text and prefix (tokenizer adds BOS: %s)", async (addsBos) => {
    const assembly = await openPromptAssembly(await load({ addsBos }));
    expect(assembly).toMatchObject({ template: "none", templateHash: undefined, wrapperTokens: 1 });
    const { ids, sha256 } = assembly.prompt(item());
    expect(ids).toEqual([BOS, ...bytes("ab c:")]);
    expect(sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(assembly.prompt(item({ id: "4" })).sha256).toBe(sha256);
    expect(assembly.prompt(item({ prompt: { user: "ab", answerPrefix: " c.", chat: true } })).sha256).not.toBe(sha256);
  });

  test.each([true, false])(
    "of a chat model is its template, without thinking, then the prefix (adds BOS: %s)",
    async (addsBos) => {
      const assembly = await openPromptAssembly(await load({ addsBos, template }));
      expect(assembly).toMatchObject({ template: "model", wrapperTokens: 3 });
      expect(assembly.prompt(item()).ids).toEqual([BOS, USER, ...bytes("ab"), ASSISTANT, ...bytes(" c:")]);
      const completed = item({ prompt: { user: "ab", answerPrefix: "", chat: false } });
      expect(assembly.prompt(completed).ids).toEqual([BOS, ...bytes("ab")]);
      expect((await openPromptAssembly(await load({ template }), { chatTemplate: "none" })).prompt(item()).ids).toEqual(
        [BOS, ...bytes("ab c:")],
      );
    },
  );

  test("has exactly one BOS, or the run ends", async () => {
    const tokenizer = await load({ addsBos: true });
    const base = await openPromptAssembly(tokenizer);
    const withBos = item({ length: 64, prompt: { user: "a<bos>b", answerPrefix: "", chat: true } });
    expect(await failure(() => base.prompt(withBos))).toBe(
      "The prompt of vt (64 tokens), item 3, has 2 BOS tokens, it must begin with the only one | does the text contain the token itself?",
    );
    // Twice at the start is one too many, which can be mended; in the middle it is another text.
    const path = join(folder, "twice.jinja");
    await writeFile(path, "{{ bos_token }}{{ bos_token }}{{ messages[0].content }}");
    expect((await openPromptAssembly(tokenizer, { chatTemplate: path })).prompt(item()).ids).toEqual([
      BOS,
      ...bytes("ab c:"),
    ]);
    await writeFile(path, "<|user|>{{ bos_token }}{{ messages[0].content }}");
    expect(await failure(() => openPromptAssembly(tokenizer, { chatTemplate: path }))).toMatch(
      /of a probe has 2 BOS tokens.* does the chat template \(.*twice.jinja\)/,
    );
  });

  test("has none where the tokenizer has none", async () => {
    const tokenizer = await load({
      config: { bos_token: null },
      template: "<|user|>{{ messages[0].content }}<|assistant|>",
    });
    const assembly = await openPromptAssembly(tokenizer);
    expect(assembly.wrapperTokens).toBe(2);
    expect(assembly.prompt(item()).ids).toEqual([USER, ...bytes("ab"), ASSISTANT, ...bytes(" c:")]);
  });

  test("of DeepSeek-V3.2 is its non-thinking turn, which its checkpoint has no template for", async () => {
    const text = (await load()).renderChat([{ role: "user", content: "Hi" }], { template: deepseekTemplate });
    expect(text).toBe("<bos><｜User｜>Hi<｜Assistant｜></think>");
    const turns = [
      { role: "user", content: "Hi" },
      { role: "assistant", content: "Ho" },
      { role: "user", content: "So?" },
    ];
    expect((await load()).renderChat(turns, { template: deepseekTemplate })).toBe(
      "<bos><｜User｜>Hi<｜Assistant｜></think>Ho<eos><｜User｜>So?<｜Assistant｜></think>",
    );
    const variables = { thinking: true };
    expect(
      (await load()).renderChat([{ role: "user", content: "Hi" }], { template: deepseekTemplate, variables }),
    ).toBe("<bos><｜User｜>Hi<｜Assistant｜><think>");
    expect(await failure(async () => openPromptAssembly(await load(), { chatTemplate: "deepseek-v3.2" }))).toMatch(
      /preset deepseek-v3.2 does not fit this model: its tokenizer has no token <｜User｜>/,
    );
  });

  test("fails in words for a template that is none", async () => {
    const tokenizer = await load();
    expect(await failure(() => openPromptAssembly(tokenizer, { chatTemplate: join(folder, "none.jinja") }))).toMatch(
      /Cannot read chat template/,
    );
    const path = join(folder, "bad.jinja");
    await writeFile(path, "{% if %}");
    expect(await failure(() => openPromptAssembly(tokenizer, { chatTemplate: path }))).toMatch(
      /Cannot render the chat template/,
    );
  });
});

describe("in thinking mode", () => {
  const closing = `${template}{% if not enable_thinking %}</think>{% endif %}`;
  const open = async () => openPromptAssembly(await load({ template: closing }), { thinking: true });

  test("a prompt opens the thought and has no answer prefix", async () => {
    const assembly = await open();
    expect(assembly.notes).toEqual([]);
    expect(assembly.prompt(item()).ids).toEqual([BOS, USER, ...bytes("ab"), ASSISTANT, ...encoded("<think>")]);
    // Few-shot tasks are continued without a template, and without a thought.
    const plain = item({ prompt: { user: "ab", answerPrefix: " c:", chat: false } });
    expect(assembly.prompt(plain).ids).toEqual([BOS, ...bytes("ab c:")]);
    expect(assembly.separate(plain.prompt, { tokens: [1], text: "<think>x" })).toEqual({ answer: "<think>x" });
    expect(assembly.separate(item().prompt, { tokens: [1, 2], text: "x</think>\ny" })).toEqual({
      answer: "y",
      thought: { text: "x", tokens: 2, closed: true },
    });
    expect(assembly.separate(item().prompt, { tokens: [1], text: "x" }).answer).toBe("");
  });

  test("the gold answer and the choices follow a thought that is closed at once", async () => {
    const assembly = await open();
    const { ids, answerStart, scoredFrom } = assembly.answer(item());
    const closed = [BOS, USER, ...bytes("ab"), ASSISTANT, ...encoded("</think>"), ...bytes(" c:")];
    expect(ids).toEqual([...closed, ...bytes(" d")]);
    expect(scoredFrom).toBe(closed.length);
    // The prompt has "<th", the closed one "</th": they agree up to the "<".
    expect(answerStart).toBe(6);
    expect(assembly.choices(item({ choices: ["A", "B"], choiceLead: " " })).shared).toEqual([...closed, ...bytes(" ")]);
  });

  test("templates that do not listen are told of", async () => {
    const deaf = await load({ template: "{{ bos_token }}{{ messages[0].content }}" });
    expect((await openPromptAssembly(deaf, { thinking: true })).notes).toEqual([
      expect.stringContaining("knows neither enable_thinking nor thinking"),
    ]);
    expect((await openPromptAssembly(deaf)).notes).toEqual([]);
    const always = await load({ template: "{{ bos_token }}{{ messages[0].content }}<think>" });
    expect((await openPromptAssembly(always)).notes).toEqual([expect.stringContaining("asked or not")]);
    expect((await openPromptAssembly(always, { thinking: true })).notes).toEqual([]);
    await expect(openPromptAssembly(deaf, { chatTemplate: "none", thinking: true })).rejects.toThrow(
      "--thinking needs a chat template",
    );
  });
});

describe("the gold answer", () => {
  test("is what follows the prompt", async () => {
    const assembly = await openPromptAssembly(await load());
    expect(assembly.answer(item())).toEqual({ ids: [BOS, ...bytes("ab c: d")], answerStart: 6, scoredFrom: 6 });
  });

  test("begins where the ids part, if it shares a token with the prompt", async () => {
    const assembly = await openPromptAssembly(await load());
    const split = item({ prompt: { user: "a", answerPrefix: " t", chat: true }, goldAnswer: "he" });
    // "th" is one token.
    expect(assembly.answer(split)).toEqual({
      ids: [BOS, ...bytes("a "), 260, ...bytes("e")],
      answerStart: 3,
      scoredFrom: 3,
    });
  });

  test("begins a turn without a blank, unless a prefix is before it", async () => {
    const assembly = await openPromptAssembly(await load({ template }));
    const bare = item({ prompt: { user: "a", answerPrefix: "", chat: true } });
    expect(assembly.answer(bare)).toEqual({
      ids: [BOS, USER, ...bytes("a"), ASSISTANT, ...bytes("d")],
      answerStart: 4,
      scoredFrom: 4,
    });
    expect(assembly.answer(item()).ids.slice(-5)).toEqual(bytes(" c: d"));
  });
});

test("labels of a choice share all ids but their own", async () => {
  const choice = item({
    prompt: { user: "q?", answerPrefix: "", chat: true },
    choices: ["A", "B"],
    choiceLead: "\nIt is (",
    goldAnswer: "\nIt is (B)",
  });
  const base = await openPromptAssembly(await load());
  expect(base.choices(choice)).toEqual({ shared: [BOS, ...bytes("q?\nIt is (")], options: [bytes("A"), bytes("B")] });
  const chat = await openPromptAssembly(await load({ template }));
  expect(chat.choices(choice).shared).toEqual([BOS, USER, ...bytes("q?"), ASSISTANT, ...bytes("It is (")]);
  // Labels of several tokens, one of which begins the other.
  expect(base.choices({ ...choice, choices: ["A", "Ax"] }).options).toEqual([bytes("A"), bytes("Ax")]);
});
