/** The loop over items, with the demo model behind it and a suite of a few short questions. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ResumeMismatchError } from "../../../src/base/errors.ts";
import { Tokenizer } from "../../../src/checkpoint/tokenizer/tokenizer.ts";
import type { EvalItem, Suite } from "../../../src/eval/item.ts";
import { openPromptAssembly, type PromptAssembly } from "../../../src/eval/prompt-assembly.ts";
import { type AnsweredItem, type Arm, type Evaluation, evaluate } from "../../../src/eval/run/evaluation.ts";
import { openModel } from "../../../src/graph/model-folder.ts";
import { parsePattern } from "../../../src/pattern/pattern.ts";
import { type ArmAnswer, type ArmRunner, Arms, type PromptRequest } from "../../../src/runtime/generate/arms.ts";
import { binaryTask } from "./samples.ts";

const full = parsePattern("FFFFFFFFFFFF");
const early = parsePattern("FSSSFSSSFSSS");
const arms: Arm[] = [
  { name: "full", pattern: full, repeat: 0 },
  { name: "early", pattern: early, repeat: 0 },
  { name: "full (2)", pattern: full, repeat: 1 },
];

function item(id: string, changes: Partial<EvalItem> = {}): EvalItem {
  return {
    id,
    task: binaryTask.name,
    prompt: { user: `The key of house ${id} is 7. The key of house ${id} is`, answerPrefix: "", chat: false },
    references: ["7"],
    goldAnswer: " 7.",
    ...changes,
  };
}

const suiteOf = (items: readonly EvalItem[]): Suite => ({
  name: "test",
  version: 1,
  tasks: [binaryTask],
  skipped: [],
  notes: [],
  bad: [],
  async *items() {
    yield* items;
  },
});

let runner: ArmRunner;
let assembly: PromptAssembly;
beforeAll(async () => {
  const model = await openModel(join(import.meta.dirname, "..", "..", "..", "models", "demo"));
  const tokenizer = await Tokenizer.load(model.path);
  assembly = await openPromptAssembly(tokenizer, { chatTemplate: "none" });
  runner = await Arms.open(model, tokenizer, [full, early], { device: "cpu", threads: 1 });
});
afterAll(() => runner.release());

async function run(items: readonly EvalItem[], changes: Partial<Evaluation> = {}): Promise<AnsweredItem[]> {
  const answered: AnsweredItem[] = [];
  const evaluation = { suite: suiteOf(items), assembly, arms, runner, window: 1024, known: [], ...changes };
  for await (const one of evaluate(evaluation)) answered.push(one);
  return answered;
}

describe("evaluate", () => {
  test("gives each item under all arms, scored, with the loss of the gold answer", async () => {
    const [one] = await run([item("a")]);
    expect(one?.samples.map(({ arm }) => [arm.name, arm.repeat])).toEqual([
      ["full", 0],
      ["early", 0],
      ["full (2)", 1],
    ]);
    for (const sample of one?.samples ?? []) {
      expect(sample.score).toBe(sample.output.includes("7") ? 1 : 0);
      expect(sample.gold_loss?.tokens).toBeGreaterThan(0);
      expect(sample).toMatchObject({ prompt_sha256: one?.samples[0]?.prompt_sha256, item: { gold_answer: " 7." } });
    }
    expect(one?.samples[2]?.output_tokens).toEqual(one?.samples[0]?.output_tokens);
  });

  test("does not run again what is known, of single arms either", async () => {
    const [one] = await run([item("a")]);
    const known = (one?.samples ?? []).map((sample) => ({ ...sample, output: "remembered" }));
    const [all] = await run([item("a")], { known });
    expect(all).toMatchObject({ fresh: [], samples: [{ output: "remembered" }, {}, {}] });
    const [partly] = await run([item("a")], { known: known.slice(0, 1) });
    expect(partly?.fresh.map(({ arm }) => arm.name)).toEqual(["early", "full (2)"]);
    expect(partly?.samples[1]?.output).toBe(one?.samples[1]?.output);
  });

  test("refuses samples of another prompt or version under the same name", async () => {
    const [one] = await run([item("a")]);
    const known = one?.samples ?? [];
    const other = item("a", { prompt: { user: "Another question", answerPrefix: "", chat: false } });
    await expect(run([other], { known })).rejects.toBeInstanceOf(ResumeMismatchError);
    const suite = { ...suiteOf([item("a")]), tasks: [{ ...binaryTask, version: 2 }] };
    await expect(run([], { known, suite })).rejects.toThrow("task needle is version 1 in the journal, now 2");
  });

  test("asks a second time with what the first answer was, and scores that", async () => {
    const prompts: string[] = [];
    const followUp = {
      maxNewTokens: 3,
      prompt(first: string) {
        prompts.push(first);
        return { user: `You said${first}. The key is`, answerPrefix: "", chat: false };
      },
    };
    const [one] = await run([item("a", { followUp })]);
    const [plain] = await run([item("a")]);
    expect(one?.samples.map(({ thought }) => thought)).toEqual(plain?.samples.map(({ output }) => output));
    // Arms that thought the same share the prompt.
    expect(prompts).toEqual([...new Set(prompts)]);
    const [first] = one?.samples ?? [];
    expect(first?.output_tokens.length).toBeLessThanOrEqual((plain?.samples[0]?.output_tokens.length ?? 0) + 3);
    expect(first?.output_tokens.length).toBeGreaterThan(plain?.samples[0]?.output_tokens.length ?? 0);
  });

  test("runs nothing of a prompt that has no room, and cuts a gold answer at the window", async () => {
    const [one] = await run([item("a")], { window: 5 });
    expect(one?.samples[0]).toMatchObject({ finish: "too-long", output_tokens: [], score: 0 });
    const tokens = assembly.prompt(item("a")).ids.length;
    const [cut] = await run([item("a", { goldAnswer: " seven seven seven seven" })], { window: tokens + 2 });
    expect(cut?.samples[0]?.gold_loss?.tokens).toBeLessThanOrEqual(3);
  });

  test("asks for a line, for samples with the same random numbers, and takes the answer behind a thought", async () => {
    const requests: PromptRequest[] = [];
    const says = (text: string): ArmAnswer => ({
      tokens: [1, 2],
      text,
      finish: "eos",
      prefillSeconds: 0,
      decodeSeconds: 0,
    });
    const scripted: ArmRunner = {
      concurrency: 1,
      threads: 1,
      plan: [],
      async answer(request) {
        requests.push(request);
        return [says("It is 8. </think>The key is 7"), says("It is 7, or"), says("7")];
      },
      async release() {},
    };
    const tokenizer = await Tokenizer.load(join(import.meta.dirname, "..", "..", "..", "models", "demo"));
    const chatTemplate = join(mkdtempSync(join(tmpdir(), "indexcache-thinking-")), "chat.jinja");
    writeFileSync(chatTemplate, "{{ messages[0].content }}{% if thinking %}<think>{% endif %}");
    const thinking = await openPromptAssembly(tokenizer, { chatTemplate, thinking: true });
    const chat = item("a", { prompt: { user: "The key of house a is 7.", answerPrefix: " It is", chat: true } });
    const suite = { ...suiteOf([chat]), tasks: [{ ...binaryTask, oneLine: true }] };
    const changes = { runner: scripted, assembly: thinking, suite, sampling: { temperature: 0.1, seed: 3 } };
    const [one] = await run([], changes);
    expect(one?.samples.map(({ output, score, thinking: thought }) => [output, score, thought?.closed])).toEqual([
      ["The key is 7", 1, true],
      ["", 0, false],
      ["", 0, false],
    ]);
    await run([], changes);
    expect(requests[0]).toMatchObject({
      stopIds: [tokenizer.encodePlain("\n").at(-1)],
      minNewTokens: 1,
      sampling: { temperature: 0.1, seed: expect.any(Number) },
    });
    expect(requests[1]).toEqual(requests[0]);
    const { answer } = requests[0] as PromptRequest;
    expect(tokenizer.decode((answer?.ids ?? []).slice(answer?.scored)).trim()).toBe("7.");
  });

  test("keeps as many items under way as the runner takes, and gives them as they finish", async () => {
    let open = 0;
    let most = 0;
    const answer: ArmAnswer = { tokens: [1], text: "7", finish: "eos", prefillSeconds: 0, decodeSeconds: 0 };
    let tellOthers = (): void => {};
    let others = 2;
    const othersAnswered = new Promise<void>((resolve) => {
      tellOthers = () => {
        if (--others === 0) resolve();
      };
    });
    const slowFirst: ArmRunner = {
      concurrency: 2,
      threads: 1,
      plan: [],
      async answer({ prompt }, patterns) {
        open++;
        most = Math.max(most, open);
        if (prompt.length === longest) await othersAnswered;
        else setImmediate(tellOthers);
        open--;
        return patterns.map(() => answer);
      },
      async release() {},
    };
    const first = item("a", { prompt: { user: "one two three four five six", answerPrefix: "", chat: false } });
    const short = ["b", "c"].map((id) => item(id, { prompt: { user: "one", answerPrefix: "", chat: false } }));
    const longest = assembly.prompt(first).ids.length;
    const answered = await run([first, ...short], { runner: slowFirst });
    expect(answered.map(({ index }) => index)).toEqual([1, 2, 0]);
    expect(most).toBe(2);
  });
});
