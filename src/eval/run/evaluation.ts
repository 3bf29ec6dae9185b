/**
 * Items through the arms: every item is answered under all of them before its samples are given away, so that whatever
 * part of a run there is, it is paired. What a journal holds is not run again.
 */
import { InterruptedError, ResumeMismatchError } from "../../base/errors.ts";
import { Random } from "../../base/random.ts";
import type { Sample } from "../../formats/sample-journal.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { ArmAnswer, ArmRunner, PromptRequest } from "../../runtime/generate/arms.ts";
import type { EvalItem, EvalTask, Suite } from "../item.ts";
import type { AssembledPrompt, PromptAssembly } from "../prompt-assembly.ts";
import { SampleMemo } from "./sample-memo.ts";

/** A pattern under evaluation; the first arm is the baseline. */
export interface Arm {
  /** As the user calls it. */
  name: string;
  pattern: Pattern;
  /** 0, or more for a pattern that an arm before it has as well. */
  repeat: number;
}

export interface Evaluation {
  suite: Suite;
  assembly: PromptAssembly;
  arms: readonly Arm[];
  runner: ArmRunner;
  /** Positions of the model. */
  window: number;
  /** Sampling instead of the most likely tokens; every item and turn has random numbers of its own, the same for all arms. */
  sampling?: { temperature: number; seed: number };
  /** What an earlier run has left. */
  known: Iterable<Sample>;
  signal?: AbortSignal;
}

/** One item under all arms. */
export interface AnsweredItem {
  /** Place in the suite's order, from 0; with several workers items finish in another one. */
  index: number;
  item: EvalItem;
  /** In the order of the arms. */
  samples: Sample[];
  /** Those of them that were run now: the others are known. */
  fresh: Sample[];
}

/** Gives every item once it is answered. */
export async function* evaluate(evaluation: Evaluation): AsyncGenerator<AnsweredItem> {
  const { suite, runner, signal } = evaluation;
  const memo = new SampleMemo(evaluation.known);
  const tasks = new Map(suite.tasks.map((task) => [task.name, task]));
  const running = new Map<number, Promise<AnsweredItem>>();
  let index = 0;
  for await (const item of suite.items()) {
    if (signal?.aborted) throw new InterruptedError("Interrupted");
    const task = tasks.get(item.task);
    if (task === undefined) throw new Error(`suite "${suite.name}" gave an item of unknown task "${item.task}"`);
    const answered = answerItem(evaluation, memo, task, item, index);
    // It may fail while the next item is being made, before anybody waits for it.
    answered.catch(() => undefined);
    running.set(index, answered);
    index++;
    if (running.size >= (runner.inHand ?? runner.concurrency)) yield await takeFirst(running);
  }
  while (running.size > 0) yield await takeFirst(running);
}

async function takeFirst(running: Map<number, Promise<AnsweredItem>>): Promise<AnsweredItem> {
  const first = await Promise.race(running.values());
  running.delete(first.index);
  return first;
}

async function answerItem(
  evaluation: Evaluation,
  memo: SampleMemo,
  task: EvalTask,
  item: EvalItem,
  index: number,
): Promise<AnsweredItem> {
  const { arms, assembly, window } = evaluation;
  const prompt = assembly.prompt(item);
  const known = arms.map((arm) => memo.find(item, arm));
  for (const sample of known) if (sample !== undefined) requireSameQuestion(task, item, prompt, sample);
  const missing = arms.filter((_, arm) => known[arm] === undefined);
  const answers =
    missing.length === 0
      ? []
      : prompt.ids.length >= window
        ? missing.map(() => tooLong)
        : await answerMissing(evaluation, task, item, index, prompt, missing);
  const fresh = missing.map((arm, at) => toSample(task, item, arm, prompt, answers[at] as Answer));
  let next = 0;
  return { index, item, samples: known.map((sample) => sample ?? (fresh[next++] as Sample)), fresh };
}

/** An answer as it is scored: of a second turn where the item has one. */
interface Answer extends Omit<ArmAnswer, "finish"> {
  finish: Sample["finish"];
  /** First of two turns. */
  thought?: string;
  /** Before the answer, in thinking mode. */
  thinking?: NonNullable<Sample["thinking"]>;
}

const tooLong: Answer = { tokens: [], text: "", finish: "too-long", prefillSeconds: 0, decodeSeconds: 0 };

async function answerMissing(
  evaluation: Evaluation,
  task: EvalTask,
  item: EvalItem,
  index: number,
  prompt: AssembledPrompt,
  arms: readonly Arm[],
): Promise<Answer[]> {
  const { assembly, runner, window, signal } = evaluation;
  const patterns = arms.map(({ pattern }) => pattern);
  const request = {
    item: index,
    ...requestOf(assembly, task, item, prompt, window),
    ...samplingOf(evaluation, item, 1),
  };
  const answers = (await runner.answer(request, patterns, signal)).map((one) => separated(assembly, item.prompt, one));
  const { followUp } = item;
  if (followUp === undefined) return answers;
  // Arms that thought the same share the second prompt.
  for (const thought of new Set(answers.map(({ text }) => text))) {
    const thinkers = answers.flatMap(({ text }, at) => (text === thought ? [at] : []));
    const turn = assembly.turn(followUp.prompt(thought), `item "${item.id}", second turn`);
    const second: Answer[] =
      turn.ids.length >= window
        ? thinkers.map(() => tooLong)
        : await runner.answer(
            {
              item: index,
              prompt: turn.ids,
              maxNewTokens: followUp.maxNewTokens,
              stop: task.stop,
              ...samplingOf(evaluation, item, 2),
            },
            thinkers.map((at) => patterns[at] as Pattern),
            signal,
          );
    for (const [nth, at] of thinkers.entries()) {
      const [first, last] = [answers[at] as Answer, second[nth] as Answer];
      answers[at] = {
        ...first,
        ...last,
        thought,
        // What one turn alone would hide: the arms may part in their thoughts and meet again.
        tokens: [...first.tokens, ...last.tokens],
        prefillSeconds: first.prefillSeconds + last.prefillSeconds,
        decodeSeconds: first.decodeSeconds + last.decodeSeconds,
      };
    }
  }
  return answers;
}

function separated(assembly: PromptAssembly, prompt: EvalItem["prompt"], generated: ArmAnswer): Answer {
  const { answer, thought } = assembly.separate(prompt, generated);
  return { ...generated, text: answer, ...(thought === undefined ? {} : { thinking: thought }) };
}

function samplingOf(
  { sampling }: Evaluation,
  { task, length, id }: EvalItem,
  turn: 1 | 2,
): Pick<PromptRequest, "sampling"> {
  if (sampling === undefined) return {};
  const { temperature, seed } = sampling;
  return {
    sampling: { temperature, seed: Random.forPart(seed, JSON.stringify([task, length ?? null, id, turn])).bits() },
  };
}

/** What is asked of the runner. Gold answers end at the window, and those that start past it are left out. */
function requestOf(
  assembly: PromptAssembly,
  task: EvalTask,
  item: EvalItem,
  prompt: AssembledPrompt,
  window: number,
): PromptRequest {
  const { ids, answerStart, scoredFrom } = assembly.answer(item);
  const answer = { ids: ids.slice(0, window), start: answerStart, scored: scoredFrom };
  const choices = item.choices === undefined ? undefined : assembly.choices(item);
  const longest = Math.max(0, ...(choices?.options ?? []).map((option) => option.length));
  const fits = choices !== undefined && choices.shared.length + longest <= window;
  return {
    prompt: prompt.ids,
    maxNewTokens: task.maxNewTokens,
    stop: task.stop,
    ...(task.oneLine === true && assembly.lineBreakId !== undefined
      ? { stopIds: [assembly.lineBreakId], minNewTokens: 1 }
      : {}),
    ...(answer.ids.length > answer.scored ? { answer } : {}),
    ...(fits ? { choices } : {}),
  };
}

function toSample(task: EvalTask, item: EvalItem, arm: Arm, prompt: AssembledPrompt, answer: Answer): Sample {
  const { tokens, text, finish, thought, thinking, answerLoss, choices, prefillSeconds, decodeSeconds } = answer;
  return {
    task: item.task,
    task_version: task.version,
    length: item.length,
    id: item.id,
    arm: { name: arm.name, pattern: arm.pattern, repeat: arm.repeat },
    prompt_sha256: prompt.sha256,
    prompt_tokens: prompt.ids.length,
    finish,
    output: text,
    output_tokens: tokens,
    thought,
    ...(thinking === undefined ? {} : { thinking }),
    score: finish === "too-long" ? 0 : task.score(text, item),
    gold_loss: answerLoss,
    choice_log_probabilities: choices,
    prefill_seconds: prefillSeconds,
    decode_seconds: decodeSeconds,
    item: {
      references: [...item.references],
      gold_answer: item.goldAnswer,
      required_start: item.requiredStart,
      choices: item.choices && [...item.choices],
      classes: item.classes && [...item.classes],
      cluster: item.cluster,
      groups: item.groups && { ...item.groups },
      truncated: item.truncated,
      depth: item.depth,
      fill: item.fill,
    },
  };
}

/** Outputs of another prompt, or scores of another version, would be mixed with new ones. */
function requireSameQuestion(task: EvalTask, item: EvalItem, prompt: AssembledPrompt, sample: Sample): void {
  const where = item.length === undefined ? item.task : `${item.task} at ${item.length}`;
  const differs =
    sample.task_version !== task.version
      ? `task ${task.name} is version ${sample.task_version} in the journal, now ${task.version}`
      : sample.prompt_sha256 !== prompt.sha256
        ? `the prompt of item "${item.id}" (${where}) is another one than in the journal (${short(sample.prompt_sha256)}, now ${short(prompt.sha256)})`
        : undefined;
  if (differs === undefined) return;
  throw new ResumeMismatchError(`Cannot resume: ${differs}`, {
    hint: "the data or the way of asking has changed: run it as before, or start anew with --fresh",
  });
}

function short(hash: string): string {
  return `${hash.slice(0, 12)}...`;
}
