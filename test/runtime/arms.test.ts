import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InterruptedError } from "../../src/base/errors.ts";
import { Tokenizer } from "../../src/checkpoint/tokenizer/tokenizer.ts";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { type ArmAnswer, Arms, type PromptRequest } from "../../src/runtime/generate/arms.ts";
import { openDecoder } from "../../src/runtime/generate/decoder.ts";
import { generate } from "../../src/runtime/generate/generation.ts";
import { PatternDecoders } from "../../src/runtime/generate/pattern-decoders.ts";
import { logProbability } from "../../src/runtime/generate/sampling.ts";

const root = join(import.meta.dirname, "..", "..");
const full = parsePattern("FFFFFFFFFFFF");
const late = parsePattern("FFFFFFFFFFSS");
const early = parsePattern("FSSSFSSSFSSS");
const settings = { device: "cpu", threads: 1 } as const;

let model: ModelFolder;
let tokenizer: Tokenizer;
let arms: Arms;
let prompt: number[];
beforeAll(async () => {
  model = await openModel(join(root, "models", "demo"));
  tokenizer = await Tokenizer.load(model.path);
  arms = await Arms.open(model, tokenizer, [full, late, early, full], settings);
  const text = readFileSync(join(root, "calibration", "demo-prompt.txt"), "utf8");
  prompt = tokenizer.encode(text.repeat(3)).slice(0, 400);
});
afterAll(() => arms.release());

const request = (more: Partial<PromptRequest> = {}): PromptRequest => ({ prompt, maxNewTokens: 12, stop: [], ...more });

describe("arms that answer the same prompt", () => {
  test("generate what each pattern generates alone", async () => {
    const patterns = [early, full, late];
    const answers = await arms.answer(request(), patterns);
    for (const [index, pattern] of patterns.entries()) {
      const decoder = await openDecoder(model, pattern, settings);
      let alone: number[] = [];
      const options = { maxNewTokens: 12, window: 1024, eosIds: tokenizer.eosIds };
      for await (const event of generate(decoder, prompt, options))
        if (event.kind === "done") alone = event.result.tokens;
      await decoder.release();
      expect(answers[index]?.tokens).toEqual(alone);
      expect(answers[index]?.text).toBe(tokenizer.decode(alone));
    }
  });

  test("answer to the last bit as without the others", async () => {
    const answer = { ids: [...prompt, 5, 6, 7], start: prompt.length };
    const [together] = await arms.answer(request({ answer }), [early, full, late]);
    const [alone] = await arms.answer(request({ answer }), [early]);
    expect(together?.answerLoss).toEqual(alone?.answerLoss);
    expect(together?.tokens).toEqual(alone?.tokens);
  });

  test("of one pattern are equal to the last bit", async () => {
    const answer = { ids: [...prompt, 5, 6, 7], start: prompt.length };
    const [one, other] = await arms.answer(request({ answer }), [full, full]);
    const exact = (given: typeof one) => ({ ...given, prefillSeconds: 0, decodeSeconds: 0 });
    expect(exact(one)).toEqual(exact(other));
  });
});

describe("teacher forcing", () => {
  test("gives the loss of the gold answer, from its first token that is not the prompt's", async () => {
    const gold = [17, 300, 42];
    const decoder = await openDecoder(model, full, settings);
    let expected = 0;
    let logits = await decoder.prefill(prompt);
    for (const id of gold) {
      expected -= logProbability(logits, id);
      logits = await decoder.decode(id);
    }
    await decoder.release();
    const [answer] = await arms.answer(request({ answer: { ids: [...prompt, ...gold], start: prompt.length } }), [
      full,
    ]);
    expect(answer?.answerLoss?.tokens).toBe(3);
    expect(answer?.answerLoss?.nats).toBeCloseTo(expected, 3);
    const merged = { ids: [...prompt.slice(0, -2), 9, ...gold], start: prompt.length - 2 };
    expect((await arms.answer(request({ answer: merged }), [full]))[0]?.answerLoss?.tokens).toBe(4);
  });

  test("does not disturb decoding", async () => {
    const [plain] = await arms.answer(request(), [early]);
    const answer = { ids: [...prompt.slice(0, -3), 1, 2, 3, 4, 5, 6, 7, 8], start: prompt.length - 3 };
    const choices = { shared: [...prompt, 11], options: [[1], [2, 3]] };
    const [scored] = await arms.answer(request({ answer, choices }), [early]);
    expect(scored?.tokens).toEqual(plain?.tokens);
  });

  test("gives the log-probability of every label, of one token or more", async () => {
    const options = [[300], [17, 42], [17]];
    const [bare] = await arms.answer(request({ choices: { shared: prompt, options } }), [full]);
    const loss = async (option: readonly number[]) => {
      const answer = { ids: [...prompt, ...option], start: prompt.length };
      return -((await arms.answer(request({ answer }), [full]))[0]?.answerLoss?.nats ?? Number.NaN);
    };
    for (const [index, option] of options.entries()) expect(bare?.choices?.[index]).toBeCloseTo(await loss(option), 4);
    const [led] = await arms.answer(request({ choices: { shared: [...prompt, 7], options: [[42]] } }), [full]);
    expect(led?.choices?.[0]).toBeCloseTo((await loss([7, 42])) - (await loss([7])), 4);
  });
});

describe("a generation ends", () => {
  test("before a stop string, without it", async () => {
    const [free] = await arms.answer(request(), [full]);
    const stop = (free?.text ?? "").slice(5, 8);
    const [stopped] = await arms.answer(request({ stop: [stop] }), [full]);
    expect(stopped).toMatchObject({ finish: "stop", text: free?.text.slice(0, free.text.indexOf(stop)) });
  });

  test("with a signal", async () => {
    const controller = new AbortController();
    controller.abort(new InterruptedError("Interrupted"));
    await expect(arms.answer(request(), [full], controller.signal)).rejects.toBeInstanceOf(InterruptedError);
  });
});

test("arms of a GPU's generation graphs, run on the CPU, answer as those of growing caches do", async () => {
  const prefills = await PatternDecoders.open(model, [full, early], { ...settings, provider: "cuda" });
  const device = new Arms(model, tokenizer, prefills, 2);
  const short = prompt.slice(0, 200);
  const answer = { ids: [...short, 5, 6, 7, 8], start: short.length };
  // The labels share less with the prompt than all of it: rows in the caches are overwritten, and run again.
  const choices = { shared: [...short.slice(0, -3), 9, 10], options: [[11], [12, 13]] };
  const asked = request({ prompt: short, answer, choices, maxNewTokens: 4 });
  const patterns = [early, early];
  const expected = await arms.answer(asked, patterns);
  const found = await device.answer(asked, patterns);
  for (const [index, one] of found.entries()) {
    const other = expected[index] as ArmAnswer;
    expect(one.tokens).toEqual(other.tokens);
    expect(one.answerLoss?.tokens).toBe(4);
    expect(one.answerLoss?.nats).toBeCloseTo(other.answerLoss?.nats as number, 4);
    for (const [label, value] of (one.choices ?? []).entries()) {
      expect(value).toBeCloseTo(other.choices?.[label] as number, 4);
    }
    expect(one.choices?.length).toBe(2);
  }
  expect(found[1]?.answerLoss).toEqual(found[0]?.answerLoss);
  expect(found[1]?.choices).toEqual(found[0]?.choices);
  // A longer prompt opens larger caches.
  const longer = request({ prompt: prompt.slice(0, 300), maxNewTokens: 4 });
  const [wanted] = await arms.answer(longer, [early]);
  const [again] = await device.answer(longer, [early]);
  expect(again?.tokens).toEqual(wanted?.tokens);
  await device.release();
}, 240_000);
