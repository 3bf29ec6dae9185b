/** `eval --server`: answers from a running engine, with a preflight, and its pattern back at the end. */
import { UsageError } from "../../base/errors.ts";
import type { Tokenizer } from "../../checkpoint/tokenizer/tokenizer.ts";
import type { ModelDescription } from "../../graph/model-folder.ts";
import { type LiveModel, numbersOf, serverLetters } from "../../live/live-model.ts";
import { preflight } from "../../live/preflight.ts";
import { ServerArms } from "../../live/server-arms.ts";
import { randomPrompts } from "../../live/verification.ts";
import { isFull, type Pattern } from "../../pattern/pattern.ts";
import type { Terminal } from "../console/terminal.ts";
import type { AnswerSource } from "../eval/answer-source.ts";
import { lossesOn, openServers, type ServerFlags } from "./server-options.ts";
import { describePreflight } from "./server-words.ts";

/** Random prompts of the preflight, on each server, and their length in index_topk. */
const preflightPrompts = 2;
const preflightMultiple = 2;

export async function serverAnswers(
  flags: ServerFlags & { server: string; temperature?: number },
  model: ModelDescription,
  terminal: Terminal,
): Promise<AnswerSource> {
  const served = await openServers(flags, model, terminal);
  const { description, replicas } = served;
  const { maxPositionEmbeddings } = model.config;
  const window = Math.min(maxPositionEmbeddings, description.maxModelLength ?? maxPositionEmbeddings);
  const { dtype, ...numbers } = numbersOf(description);
  return {
    window,
    settings: { device: "server", dtype: dtype ?? "unknown", servers: replicas.length, ...numbers },
    runtime: description.title,
    notes: notesOn(served, (flags.temperature ?? 0) > 0),
    require: (pattern) => requireServable(served, pattern),
    async open(_patterns, tokenizer: Tokenizer) {
      await served.prepare(terminal.signal);
      const { concurrency } = flags;
      await tellPreflight(served, model, concurrency, window, terminal);
      return new ServerArms(served, tokenizer, { window, concurrency, note: (words) => terminal.warn(words) });
    },
    release: () => served.release(),
  };
}

function notesOn({ description, replicas }: LiveModel, samples: boolean): string[] {
  const { title, servedModel } = description;
  const servers = replicas.length === 1 ? "" : ` on ${replicas.length} servers`;
  return [
    `Answered by ${title}, ${servedModel}${servers}: a batch of items under one pattern, then the same items under the next`,
    ...(samples && description.engine === "sglang"
      ? [
          "SGLang draws other random numbers for each arm where --temperature samples, unless it runs with --enable-deterministic-inference",
        ]
      : []),
  ];
}

/** @throws UsageError for a pattern that the server cannot run, before anything long begins */
function requireServable(served: LiveModel, pattern: Pattern): void {
  for (const { description } of served.replicas) serverLetters(pattern, description);
  const start = served.pinned.find((layer) => !isFull(pattern, layer));
  if (start === undefined) return;
  throw new UsageError(`${pattern} makes layer ${start} Shared, with which a pipeline stage of the server begins`, {
    hint: "it would read what another request has left there: search with these stages, or serve with fewer",
  });
}

/** Whether patterns reach the model, before hours are spent on arms that are all the same. */
async function tellPreflight(
  served: LiveModel,
  model: ModelDescription,
  concurrency: number,
  window: number,
  terminal: Terminal,
): Promise<void> {
  const { indexTopk, vocabSize } = model.config;
  const length = Math.min(preflightMultiple * indexTopk, window - 1);
  if (length <= indexTopk) {
    throw new UsageError(
      `The server takes sequences of up to ${window} tokens, index_topk is ${indexTopk}: every pattern is the same there`,
      { hint: "start it with a larger --max-model-len (vLLM) or --context-length (SGLang)" },
    );
  }
  const windows = randomPrompts(preflightPrompts * served.replicas.length, length, vocabSize);
  const losses = lossesOn(served, { windows }, { objective: "nll", indexTopk, concurrency }, terminal);
  const [, acts] = describePreflight(await preflight(served, losses, [...windows.keys()], indexTopk, terminal.signal));
  terminal.note(`on random tokens, ${acts}`);
}
