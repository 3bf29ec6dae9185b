/** The shipped model against transformers: what its file test/fixtures/demo/oracle.json holds. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { hashFile } from "../../src/base/user-files.ts";
import { loadCalibrationSet } from "../../src/calibration/calibration-set.ts";
import { Tokenizer } from "../../src/checkpoint/tokenizer/tokenizer.ts";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { type Pattern, parsePattern } from "../../src/pattern/pattern.ts";
import { uniformPattern } from "../../src/pattern/schedule.ts";
import { openDecoder } from "../../src/runtime/generate/decoder.ts";
import { openLossEvaluator } from "../../src/runtime/loss/loss-evaluator.ts";
import type { PatternEvaluator } from "../../src/runtime/measurement.ts";
import { fixturePath, largestDifference } from "../oracle.ts";

const pattern = z.string().transform((text): Pattern => parsePattern(text));
const oracle = z
  .object({
    sha256: z.record(z.string(), z.string()),
    tokenization: z.array(z.object({ text: z.string(), ids: z.array(z.number()) })),
    chat: z.object({
      messages: z.array(z.object({ role: z.enum(["system", "user", "assistant"]), content: z.string() })),
      add_generation_prompt: z.boolean(),
      text: z.string(),
      ids: z.array(z.number()),
    }),
    windows: z.object({ length: z.number(), count: z.number(), ids: z.array(z.array(z.number())) }),
    losses: z.array(z.object({ pattern, mean_nll_ties_to_lowest_index: z.array(z.number()) })),
    last_rows: z.array(
      z.object({ pattern, window: z.number(), tokens: z.array(z.number()), logits: z.array(z.number()) }),
    ),
    generations: z.array(
      z.object({ pattern, prompt: z.array(z.number()), tokens: z.array(z.number()), text: z.string() }),
    ),
    greedy_search: z.object({
      steps: z.array(
        z.object({ pattern, candidates: z.array(z.object({ pattern, loss: z.number() })), loss: z.number() }),
      ),
    }),
  })
  .parse(JSON.parse(readFileSync(`${fixturePath("demo")}/oracle.json`, "utf8")));

const folder = fileURLToPath(new URL("../../models/demo", import.meta.url));
const calibration = fileURLToPath(new URL("../../calibration/demo.jsonl", import.meta.url));
const cpu = { device: "cpu", threads: 1, workers: 1 } as const;

let model: ModelFolder;
let tokenizer: Tokenizer;
let evaluator: PatternEvaluator;

beforeAll(async () => {
  model = await openModel(folder);
  tokenizer = await Tokenizer.load(folder);
  const windows = oracle.windows.ids.map((ids) => Int32Array.from(ids));
  evaluator = await openLossEvaluator(model, windows, cpu);
});
afterAll(() => evaluator.release());

describe("the demo model", () => {
  test("is the one that transformers was asked about", async () => {
    expect(await hashFile(`${folder}/model.safetensors`)).toBe(oracle.sha256["model.safetensors"]);
    expect(await hashFile(calibration)).toBe(oracle.sha256["demo.jsonl"]);
  });

  test("tokenizes and renders chats as transformers does", () => {
    for (const { text, ids } of oracle.tokenization)
      expect(tokenizer.encode(text)).toEqual(ids[0] === 0 ? ids : [0, ...ids]);
    const { messages, text } = oracle.chat;
    expect(tokenizer.renderChat(messages)).toBe(text);
  });

  test("calibration windows are packed as described", async () => {
    const set = await loadCalibrationSet(calibration, model.config, async (text) => tokenizer.encode(text), {
      sequenceLength: oracle.windows.length,
      textColumn: "text",
      seed: 0,
      pack: true,
    });
    for (const [i, ids] of oracle.windows.ids.entries()) expect([...(set.windows[i] ?? [])]).toEqual(ids);
  });

  test("LM losses of four patterns", async () => {
    for (const { pattern, mean_nll_ties_to_lowest_index: wanted } of oracle.losses) {
      const { sequences } = await evaluator.evaluate(pattern);
      expect(
        largestDifference(
          sequences.map(({ loss }) => loss),
          wanted,
        ),
      ).toBeLessThan(2e-4);
    }
  });

  test("separates patterns: uniform:4 costs more than 0.05 nats", async () => {
    const full = await evaluator.evaluate(model.config.indexerLayers);
    const uniform = await evaluator.evaluate(uniformPattern(model.config.numHiddenLayers, 4));
    expect(uniform.loss - full.loss).toBeGreaterThan(0.05);
  });

  test("the last greedy steps: every candidate's loss, with states of the base reused", async () => {
    const steps = oracle.greedy_search.steps;
    for (const [index, { candidates, pattern: chosen }] of steps.entries()) {
      if (index < steps.length - 2) continue;
      const base = steps[index - 1]?.pattern as Pattern;
      let best: { pattern: Pattern; loss: number } | undefined;
      for (const { pattern, loss } of candidates) {
        const measured = await evaluator.evaluate(pattern, { base });
        expect(Math.abs(measured.loss - loss)).toBeLessThan(1e-4);
        if (best === undefined || measured.loss < best.loss) best = measured;
      }
      expect(best?.pattern).toBe(chosen);
    }
  });

  test.each(oracle.generations.map((run) => [run.pattern, run] as const))(
    "%s finds the needle of the demo prompt, token by token as transformers",
    async (_, { pattern, prompt, tokens }) => {
      const decoder = await openDecoder(model, pattern, cpu);
      const generated: number[] = [];
      let logits = await decoder.prefill(prompt);
      while (generated.length < tokens.length) {
        generated.push(logits.indexOf(Math.max(...logits)));
        if (generated.length < tokens.length) logits = await decoder.decode(generated.at(-1) ?? -1);
      }
      expect(generated).toEqual(tokens);
      await decoder.release();
    },
  );

  test("logits of the last row of a window", async () => {
    for (const { pattern, window, tokens, logits } of oracle.last_rows) {
      const decoder = await openDecoder(model, pattern, cpu);
      const found = await decoder.prefill(oracle.windows.ids[window] ?? []);
      expect(
        largestDifference(
          tokens.map((token) => found[token] ?? NaN),
          logits,
        ),
      ).toBeLessThan(1e-2);
      await decoder.release();
    }
  });
});
