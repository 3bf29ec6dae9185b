import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { IndexCacheError } from "../../src/base/errors.ts";
import { fullPattern } from "../../src/pattern/pattern.ts";
import {
  type GenerationEvent,
  type GenerationOptions,
  type GenerationResult,
  generate,
} from "../../src/runtime/generate/generation.ts";
import type { Decoder } from "../../src/runtime/measurement.ts";

const EOS = 0;

/** A decoder whose next token is a function of the last one; letters are their ASCII codes. */
function chain(next: (id: number) => number): Decoder & { fed: number[] } {
  const fed: number[] = [];
  const logitsAfter = (id: number): Float32Array => {
    const logits = new Float32Array(128);
    logits[next(id)] = 1;
    return logits;
  };
  return {
    fed,
    pattern: fullPattern(2),
    vocabularySize: 128,
    async prefill(ids) {
      fed.push(...ids);
      return logitsAfter(ids.at(-1) ?? 0);
    },
    async decode(id) {
      fed.push(id);
      return logitsAfter(id);
    },
    get indexerExecutions() {
      return { made: fed.length, saved: 1 };
    },
    cacheBytes: { latent: 0, indexerKey: 0 },
    plan: [],
    async release() {},
  };
}

/** Says the text letter by letter, then ends. */
function speaker(text: string): Decoder & { fed: number[] } {
  let position = 0;
  return chain(() => (position < text.length ? text.charCodeAt(position++) : EOS));
}

const letters = { push: (id: number) => (id === EOS ? "" : String.fromCharCode(id)), end: () => "" };

async function run(
  decoder: Decoder,
  options: Partial<GenerationOptions> = {},
  prompt = [65],
): Promise<{ streamed: string; result: GenerationResult }> {
  const events: GenerationEvent[] = [];
  const all = { maxNewTokens: 20, window: 1000, text: letters, eosIds: [EOS], ...options };
  for await (const event of generate(decoder, prompt, all)) events.push(event);
  const last = events.at(-1);
  if (last?.kind !== "done") throw new Error("generation did not end");
  return {
    streamed: events.map((event) => (event.kind === "prefilled" ? "" : event.text)).join(""),
    result: last.result,
  };
}

describe("generate()", () => {
  test("streams what the decoder says until an end-of-sequence token", async () => {
    const decoder = speaker("hello");
    const { streamed, result } = await run(decoder, {}, [65, 66]);
    expect(streamed).toBe("hello");
    expect(result).toMatchObject({
      promptTokens: 2,
      text: "hello",
      finish: "eos",
      indexerExecutions: { made: 7, saved: 1 },
    });
    expect(result.tokens).toEqual([...Buffer.from("hello"), EOS]);
    expect(decoder.fed).toEqual([65, 66, ...Buffer.from("hello")]);
  });

  test("stops at the number of tokens without decoding the last one", async () => {
    const decoder = speaker("hello");
    const { result } = await run(decoder, { maxNewTokens: 3 });
    expect(result).toMatchObject({ text: "hel", finish: "length" });
    expect(decoder.fed).toEqual([65, ...Buffer.from("he")]);
    expect((await run(speaker("hello"), { maxNewTokens: 1 })).result).toMatchObject({ text: "h", decodeSeconds: 0 });
  });

  test("stops at the model's window", async () => {
    expect((await run(speaker("hello"), { window: 4 })).result).toMatchObject({ text: "hel", finish: "window" });
  });

  test("goes on past end-of-sequence tokens when told to", async () => {
    const { result } = await run(
      chain(() => EOS),
      { eosIds: [], maxNewTokens: 4 },
    );
    expect(result).toMatchObject({ tokens: [EOS, EOS, EOS, EOS], finish: "length" });
  });

  test("stops at a stop token, and lets neither that nor an end of sequence come too early", async () => {
    expect((await run(speaker("hello\nyou"), { stopIds: [10] })).result).toMatchObject({
      text: "hello",
      finish: "stop",
    });
    expect((await run(speaker("\nyou"), { stopIds: [10] })).result).toMatchObject({ text: "", finish: "stop" });
    // Both are impossible as a first token: the lowest id among the equally likely others comes.
    const early = await run(speaker("\nb"), { stopIds: [10], minNewTokens: 1 });
    expect(early.result.tokens).toEqual([1, 98, EOS]);
    expect((await run(speaker(""), { stopIds: [10], minNewTokens: 1 })).result.tokens).toEqual([1, EOS]);
    const late = await run(speaker("a\nb"), { stopIds: [10], minNewTokens: 1 });
    expect(late.result).toMatchObject({ text: "a", tokens: [97, 10], finish: "stop" });
  });

  test("gives ids alone without a tokenizer", async () => {
    const { text: _, ...options } = { text: undefined, maxNewTokens: 3, window: 9 };
    const events: GenerationEvent[] = [];
    for await (const event of generate(speaker("abc"), [1], options)) events.push(event);
    expect(events.at(-1)).toMatchObject({ result: { tokens: [97, 98, 99], text: "" } });
  });

  test("cuts at a stop string, and lets beginnings of one through that come to nothing", async () => {
    expect((await run(speaker("one\n\ntwo"), { stop: ["\n\n"] })).result).toMatchObject({
      text: "one",
      finish: "stop",
    });
    expect((await run(speaker("a\nb"), { stop: ["\n\n"] })).result).toMatchObject({ text: "a\nb", finish: "eos" });
    expect((await run(speaker("aab"), { stop: ["ab"] })).result.text).toBe("a");
    expect((await run(speaker("xEND"), { stop: ["ENDING", "EN"] })).result.text).toBe("x");
  });

  test("streams the text up to the first stop string for any text and any stops", async () => {
    const word = fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(
        fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 15 }),
        fc.array(word, { maxLength: 3 }),
        async (text, stop) => {
          const { streamed, result } = await run(speaker(text), { stop });
          // The stop string that is complete first cuts; where two are at the same token, the one that begins earlier.
          let expected = text;
          for (let end = 0; end <= text.length; end++) {
            const starts = stop.map((one) => text.slice(0, end).indexOf(one)).filter((at) => at >= 0);
            if (starts.length === 0) continue;
            expected = text.slice(0, Math.min(...starts));
            break;
          }
          expect(streamed).toBe(expected);
          expect(result.text).toBe(expected);
        },
      ),
    );
  });

  test("gives the detokenizer's held text at the end", async () => {
    const { streamed } = await run(speaker("ab"), { text: { push: () => "", end: () => "late" } });
    expect(streamed).toBe("late");
  });

  test("stops between tokens when asked", async () => {
    const stop = new AbortController();
    const decoder = chain((id) => id);
    const generation = generate(decoder, [65], { maxNewTokens: 100, window: 1000, signal: stop.signal });
    await expect(async () => {
      for await (const event of generation) if (event.kind === "token") stop.abort(new Error("asked to stop"));
    }).rejects.toThrow("asked to stop");
    expect(decoder.fed).toEqual([65]);
  });

  test.each<[string, number[], Partial<GenerationOptions>, RegExp]>([
    ["no token", [], {}, /prompt is empty/],
    ["an id above the vocabulary", [1, 128], {}, /id 128 at position 1 .* vocabulary of 128/],
    ["a fraction", [1.5], {}, /id 1.5/],
    ["a prompt as long as the window", [1, 2, 3], { window: 3 }, /3 tokens, the model's window is 3/],
    ["no new tokens", [1], { maxNewTokens: 0 }, /--max-new-tokens is 0/],
    ["an empty stop string", [1], { stop: [""] }, /--stop is empty/],
  ])("refuses %s", async (_, prompt, options, message) => {
    const error = await run(speaker("a"), options, prompt).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(IndexCacheError);
    expect(error).toMatchObject({ message: expect.stringMatching(message) });
  });
});
