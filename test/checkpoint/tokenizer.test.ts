import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { InputError } from "../../src/base/errors.ts";
import { describeLongestRun, Tokenizer } from "../../src/checkpoint/tokenizer/tokenizer.ts";
import {
  ComputingTime,
  TokenizerFailure,
  TokenizerOverrun,
  TokenizerThread,
} from "../../src/checkpoint/tokenizer/tokenizer-thread.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { BOS, type ByteTokenizerOptions, EOS, writeByteTokenizer } from "./byte-tokenizer.ts";

const folder = temporaryFolder("test");

async function load(options: ByteTokenizerOptions = {}): Promise<Tokenizer> {
  await writeByteTokenizer(folder, options);
  return Tokenizer.load(folder);
}

describe("encode()", () => {
  test("gives exactly one BOS, whoever adds it", async () => {
    for (const addsBos of [true, false]) {
      const tokenizer = await load({ addsBos });
      expect(tokenizer.encode("the")).toEqual([BOS, 260, 101]);
      expect(tokenizer.encode("<bos>the")).toEqual([BOS, 260, 101]);
      expect(tokenizer.encode("")).toEqual([BOS]);
      expect(tokenizer.encodePlain("the")).toEqual([260, 101]);
    }
  });

  test("takes the BOS of the configs, generation_config.json first", async () => {
    const config = { bos_token: undefined };
    expect((await load({ config, model: { bos_token_id: 5 } })).bosId).toBe(5);
    expect((await load({ config, model: { bos_token_id: 5 }, generation: { bos_token_id: 6 } })).bosId).toBe(6);
  });

  test("adds none where the model has none", async () => {
    expect((await load({ config: { bos_token: null }, model: { bos_token_id: 5 } })).encode("a")).toEqual([97]);
    expect((await load({ config: { add_bos_token: false } })).encode("a")).toEqual([97]);
    await rm(join(folder, "generation_config.json"), { force: true });
  });

  test("and decode() are inverse", async () => {
    const tokenizer = await load({ addsBos: true });
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      }),
    );
  });
});

test("encodeAll() gives what encode() gives, by one thread and by several, and names the text that fails", async () => {
  const tokenizer = await load({ addsBos: true });
  const texts = ["the", "", "a longer text than the others, of many tokens", "<bos>the", "e"];
  const each = texts.map((text) => tokenizer.encode(text));
  for (const _ of [1, 2, 3]) expect(tokenizer.encodeAll(texts)).toEqual(each);
  tokenizer.dismiss();
  for (const _ of [1, 2]) expect(tokenizer.encodeAll(texts)).toEqual(each);
  expect(tokenizer.encodeAll([])).toEqual([]);
  const call = vi.spyOn(TokenizerThread.prototype, "begin").mockImplementation((...[, text]) => {
    if (Array.isArray(text) || text === "bad") throw new TokenizerFailure("no");
    return () => Int32Array.of(1) as never;
  });
  expect(() => tokenizer.encodeAll(["good", "bad"])).toThrow(/Cannot tokenize a text .*3 characters.*: no$/s);
  call.mockRestore();
  expect(tokenizer.encodeAll(texts)).toEqual(each);
});

test("a late notice of an earlier answer is not taken for an answer", async () => {
  const tokenizer = await load();
  const wait = Atomics.wait.bind(Atomics);
  // On a busy machine the thread notifies of an answer that the caller has long seen, and wakes it out of its next call.
  const late = vi.spyOn(Atomics, "wait").mockImplementationOnce(() => "ok");
  late.mockImplementation(wait as typeof Atomics.wait);
  try {
    // The thread may have answered before anybody waits: asked again until the late notice has come.
    for (let tries = 0; tries < 1000 && late.mock.calls.length === 0; tries++) {
      expect(tokenizer.decode([116, 104, 101])).toBe("the");
    }
    expect(late.mock.calls.length).toBeGreaterThan(0);
  } finally {
    late.mockRestore();
  }
});

test("decode() drops blanks before signs only where the checkpoint asks for it", async () => {
  const text = "do n't , he said .";
  expect((await load()).decode(Buffer.from(text).toJSON().data)).toBe(text);
  const cleaning = await load({ config: { clean_up_tokenization_spaces: true } });
  expect(cleaning.decode(Buffer.from(text).toJSON().data)).toBe("don't, he said.");
});

describe("eosIds", () => {
  test("join the generation config's and the tokenizer's", async () => {
    expect((await load({ generation: { eos_token_id: [3, 4] }, model: { eos_token_id: 9 } })).eosIds).toEqual([
      3,
      4,
      EOS,
    ]);
    await rm(join(folder, "generation_config.json"));
    expect((await load({ model: { eos_token_id: 9 } })).eosIds).toEqual([9, EOS]);
    expect((await load({ config: { eos_token: null } })).eosIds).toEqual([]);
  });
});

describe("detokenizer()", () => {
  test("never gives half a character, and in the end gives the whole text", async () => {
    const tokenizer = await load();
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom("a", "th", " ", "é", "語", "👍", "<eos>", "\n") }), (text) => {
        const stream = tokenizer.detokenizer();
        const parts = tokenizer.encodePlain(text).map((id) => stream.push(id));
        expect(parts.join("")).not.toContain("\ufffd");
        expect(parts.join("") + stream.end()).toBe(text.replaceAll("<eos>", ""));
      }),
    );
  });

  test("gives a character as soon as it is whole", async () => {
    const stream = (await load()).detokenizer();
    expect([0xf0, 0x9f, 0x91, 0x8d, 97].map((id) => stream.push(id))).toEqual(["", "", "", "👍", "a"]);
    expect(stream.end()).toBe("");
  });

  test("shows a character that stays incomplete at the end only", async () => {
    const stream = (await load()).detokenizer();
    expect([97, 0xe8, 0xaa].map((id) => stream.push(id))).toEqual(["a", "", ""]);
    expect(stream.end()).toBe("\ufffd");
  });
});

describe("chat templates", () => {
  const template =
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
  const messages = [{ role: "user" as const, content: "hi" }];

  test("come from chat_template.jinja or tokenizer_config.json", async () => {
    expect((await load({ config: { chat_template: "C{{ messages[0].content }}" } })).renderChat(messages)).toBe("Chi");
    const named = [
      { name: "tool_use", template: "T" },
      { name: "default", template: "D" },
    ];
    expect((await load({ config: { chat_template: named } })).renderChat(messages)).toBe("D");
    expect((await load({ template, config: { chat_template: "C" } })).renderChat(messages)).toBe(
      "<bos><|user|>hi<|assistant|>",
    );
  });

  test("give one BOS though both the template and the tokenizer write it", async () => {
    expect((await load({ template, addsBos: true })).encodeChat(messages)).toEqual([BOS, 258, 104, 105, 259]);
  });

  test("are missed with a hint, and their own errors are told", async () => {
    const error = await load()
      .then((tokenizer) => tokenizer.renderChat(messages))
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ message: "The model has no chat template", hint: expect.stringContaining("--chat") });
    const broken = await load({ template: "{{ raise_exception('system first') }}" });
    expect(() => broken.renderChat(messages)).toThrow(/chat template beside ".*tokenizer.json": .*system first/);
  });
});

describe("load()", () => {
  test("names what is missing or malformed", async () => {
    await expect(Tokenizer.load(folder)).rejects.toThrow(/has no tokenizer.json/);
    await writeByteTokenizer(folder);
    await writeFile(join(folder, "tokenizer_config.json"), '{"bos_token": 5}');
    await expect(Tokenizer.load(folder)).rejects.toThrow(/tokenizer_config.json": "bos_token"/);
    await writeByteTokenizer(folder);
    await writeFile(join(folder, "tokenizer.json"), "{");
    await expect(Tokenizer.load(folder)).rejects.toThrow(/tokenizer.json" is not JSON/);
    await writeFile(join(folder, "tokenizer.json"), '{"model":{"type":"Nonsense","vocab":{}}}');
    await expect(Tokenizer.load(folder)).rejects.toThrow(InputError);
  });
});

describe("a thread is waited for", () => {
  /** Waits as long as it is told to, on a machine that gives so much of a processor until the thread ends. */
  const waited = (limit: number, share: number, computes = Number.POSITIVE_INFINITY) => {
    let wall = 5000;
    const processor = () => 300 + Math.min(computes, share * (wall - 5000));
    const time = new ComputingTime(limit, { wall: () => wall, processor });
    for (let left = time.left(); left > 0; left = time.left()) wall += left;
    return { wall: wall - 5000, processor: processor() - 300 };
  };

  test("until it had its time of a processor, on a busy machine as well", () => {
    expect(waited(1000, 1)).toEqual({ wall: 1000, processor: 1000 });
    expect(waited(1000, 0.05)).toMatchObject({ processor: expect.closeTo(1000, -1) });
  });

  test("as long by the clock where other threads of the process compute", () => {
    expect(waited(1000, 8)).toMatchObject({ wall: 1000 });
  });

  test("no longer once it computes nothing any more", () => {
    expect(waited(1000, 1, 500).wall).toBeLessThanOrEqual(2000);
    expect(waited(1000, 0.05, 100).wall).toBeLessThanOrEqual(4000);
  });
});

describe("what does not end is ended", () => {
  /** A second instead of twenty. */
  const patience = 0.05;
  const start = async (change: (tokenizer: Record<string, unknown>) => void = () => undefined) => {
    await writeByteTokenizer(folder);
    const tokenizer = JSON.parse(await readFile(join(folder, "tokenizer.json"), "utf8"));
    change(tokenizer);
    const thread = new TokenizerThread({ tokenizer: JSON.stringify(tokenizer), config: {} }, patience);
    thread.call("load");
    return thread;
  };

  test("a regular expression that tries every way", async () => {
    const split = { type: "Split", pattern: { Regex: "(a+)+$" }, behavior: "Isolated", invert: false };
    const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
    const thread = await start((tokenizer) => {
      tokenizer.pre_tokenizer = { type: "Sequence", pretokenizers: [split, bytes] };
    });
    expect([...thread.call("encode", "aaa", false)]).toEqual([97, 97, 97]);
    expect(() => thread.call("encode", `${"a".repeat(40)}!`, false)).toThrow(TokenizerOverrun);
    expect(() => thread.call("encode", "b", false)).toThrow(/did not end within \d+ s of computing and 2 GiB/);
  });

  test.each([
    ["never ends", "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"],
    ["grows", "{% for i in range(100000) %}{% for j in range(100000) %}xxxxxxxxxxxxxxxx{% endfor %}{% endfor %}"],
  ])("a template that %s", async (_, template) => {
    const thread = await start();
    expect(() => thread.call("render", template, {})).toThrow(TokenizerOverrun);
  });

  test("a template that asks for more than there is fails", async () => {
    const thread = await start();
    expect(() => thread.call("render", "{{ range(10000000000) }}", {})).toThrow();
    const broken = await load({ template: "{% for x in nothing.of.it.all %}{% endfor %}" });
    expect(() => broken.renderChat([])).toThrow(InputError);
  });

  test("the place where a text is most difficult is named", () => {
    expect(describeLongestRun("a  aaaa aazaa")).toBe(
      "13 characters; its longest run has 5 characters without a blank, from character 8",
    );
    expect(describeLongestRun(`b${" ".repeat(2000)}`)).toMatch(/2,001 characters; .* 2,000 blanks, from character 1$/);
  });

  test("a file that nests deeply is one sentence", async () => {
    await writeByteTokenizer(folder);
    const deep = `${'{"a":'.repeat(100_000)}1${"}".repeat(100_000)}`;
    await writeFile(join(folder, "tokenizer.json"), `{"model":{"type":"BPE","vocab":{}},"deep":${deep}}`);
    await expect(Tokenizer.load(folder)).rejects.toThrow(InputError);
  });
});
