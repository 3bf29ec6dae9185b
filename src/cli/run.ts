/** `indexcache run`: generates text with a pattern. */
import process from "node:process";
import { text as readStream } from "node:stream/consumers";
import type { Command } from "commander";
import { z } from "zod";
import { UsageError } from "../base/errors.ts";
import { escapeForTerminal } from "../base/quoted.ts";
import { Tokenizer } from "../checkpoint/tokenizer/tokenizer.ts";
import { readText } from "../formats/text-file.ts";
import { parseJson } from "../formats/validation.ts";
import { formatRunStatistics, runRecord } from "../report/run-report.ts";
import { openDecoder, openOverlappedDecoder, overlaps } from "../runtime/generate/decoder.ts";
import { type GenerationResult, generate, requirePrompt } from "../runtime/generate/generation.ts";
import { createSampler } from "../runtime/generate/sampling.ts";
import type { Decoder } from "../runtime/measurement.ts";
import { providerOf } from "../runtime/session/execution-provider.ts";
import { type Flags, group, option, repeatable } from "./arguments/declared-option.ts";
import { beginToOpen, choosePattern, openDevice } from "./arguments/inputs.ts";
import { modelOptions, openModelToRun, openTokenizer } from "./arguments/opening.ts";
import {
  addModelArgument,
  decimalNumber,
  demoModel,
  deviceOptions,
  dtypeOptions,
  outputOptions,
  patternOptions,
  positiveNumber,
  wholeNumber,
} from "./arguments/options.ts";
import { profileOptions, withProfile } from "./arguments/profile.ts";
import { whileWaiting } from "./console/patience.ts";
import type { Terminal } from "./console/terminal.ts";
import { addWork } from "./console/work.ts";

const promptOptions = group(
  "Prompt:",
  option("--prompt <text>", "the prompt (default: stdin)"),
  option("--prompt-file <file>", "read the prompt from a text file"),
  option("--tokens-file <file>", "take a JSON array of token ids as the prompt, as they are"),
  option("--chat", "put the prompt into the model's chat template, as the user's message"),
);

/** Text that is still to be tokenized, or ids that are used as they are. */
type Prompt = { text: string } | { ids: number[] };

/** @throws UsageError where no place or several are named */
export async function readPrompt({
  prompt,
  promptFile,
  tokensFile,
  chat,
}: Flags<typeof promptOptions>): Promise<Prompt> {
  const named = Object.entries({ "--prompt": prompt, "--prompt-file": promptFile, "--tokens-file": tokensFile }).filter(
    ([, value]) => value !== undefined,
  );
  if (named.length > 1) throw new UsageError(`${named.map(([flag]) => flag).join(" and ")} exclude each other`);
  if (prompt !== undefined) return { text: prompt };
  if (promptFile !== undefined) return { text: await readText(promptFile, `prompt file "${promptFile}"`) };
  if (tokensFile !== undefined) {
    if (chat === true) throw new UsageError("--chat needs text: token ids are used as they are");
    const what = `Tokens file "${tokensFile}"`;
    const text = await readText(tokensFile, `tokens file "${tokensFile}"`);
    return { ids: parseJson(text, z.array(z.int()), what, "it holds a JSON array of token ids") };
  }
  if (process.stdin.isTTY) {
    throw new UsageError("There is no prompt", {
      hint: "give --prompt, --prompt-file or --tokens-file, or pipe text in",
    });
  }
  return { text: await readStream(process.stdin) };
}

const options = [
  ...modelOptions,
  ...patternOptions,
  ...promptOptions,
  ...group(
    "Answer:",
    option("-n, --max-new-tokens <n>", "end after this many tokens", positiveNumber, 128),
    option("--temperature <t>", "0 is greedy", decimalNumber),
    option("--top-k <k>", "draw from the k most likely tokens", positiveNumber),
    option("--top-p <p>", "draw from the most likely tokens that together reach p", decimalNumber),
    option("--seed <n>", "seed of every random choice", wholeNumber, 0),
    repeatable("--stop <text>", "end before this text; may be given several times"),
    option("--ignore-eos", "continue past the end of the text"),
  ),
  ...deviceOptions,
  ...dtypeOptions,
  ...profileOptions,
  ...outputOptions,
] as const;

type RunFlags = Flags<typeof options>;

const help = `
Text goes to stdout as it is made, a line of statistics to stderr. Greedy unless --temperature, --top-k or --top-p ask
for sampling; the same seed gives the same text.

Examples:
  $ indexcache run --prompt "The key of" --max-new-tokens 32
  $ indexcache run ./model -p quarter.json --chat --prompt-file question.txt
  $ cat article.txt | indexcache run ./model -p FSSFFSSF --temperature 0.7 --top-p 0.9 --seed 3
  $ indexcache run ./model -p uniform:4 --tokens-file ids.json --json`;

export function addRunCommand(program: Command): void {
  const command = program.command("run").description("Generate text with a pattern");
  addModelArgument(command);
  const shown = "pattern prompt prompt-file chat max-new-tokens temperature seed device dtype json";
  addWork(command, { options, help, shown, stopping: "Stopping" }, run);
}

async function run(path = demoModel, flags: RunFlags, terminal: Terminal): Promise<void> {
  const sample = createSampler(flags);
  const prompt = await readPrompt(flags);
  const named = beginToOpen(flags, terminal);
  const model = await openModelToRun(path, flags, terminal);
  const pattern = await choosePattern(model, flags);
  // A prompt of ids does without a tokenizer; text and stop strings do not.
  const tokenizer =
    "text" in prompt || flags.stop.length > 0
      ? await Tokenizer.load(model.path)
      : await openTokenizer(model, terminal, "ids are printed instead of text");
  const ids = "ids" in prompt ? prompt.ids : encode(prompt.text, flags, tokenizer);
  const { maxPositionEmbeddings: window, vocabSize } = model.config;
  requirePrompt(ids, vocabSize, { maxNewTokens: flags.maxNewTokens, window });
  const capacity = Math.min(window, ids.length + flags.maxNewTokens);
  const amount = () => ({ passed: ids.length, decoded: capacity - ids.length });
  const settings = {
    ...(await (named ?? openDevice(flags, terminal, { work: { model, amount } }))),
    dtype: flags.dtype,
    capacity,
  };
  await model.checkWeights();
  await withProfile(flags, terminal, async (recording) => {
    const opened = performance.now();
    const all = { ...settings, ...(recording === undefined ? {} : { recording }) };
    const sizes = { prompt: ids.length, newTokens: flags.maxNewTokens };
    const open: (...of: Parameters<typeof openDecoder>) => Promise<Decoder> = overlaps(all, model.config, sizes)
      ? openOverlappedDecoder
      : openDecoder;
    const decoder: Decoder = await whileWaiting(terminal, "loading the model", () => open(model, pattern, all));
    const loadSeconds = (performance.now() - opened) / 1000;
    try {
      for (const line of decoder.plan) terminal.detail(line);
      if (settings.dtype === "float32" && providerOf(settings.device) === "cuda") {
        terminal.note("float32 caches cross to the GPU with every token: --dtype float16 keeps them there");
      }
      const result = await stream(decoder, ids, flags.json === true, {
        maxNewTokens: flags.maxNewTokens,
        window,
        sample,
        eosIds: flags.ignoreEos === true ? [] : (tokenizer?.eosIds ?? model.config.eosTokenIds),
        stop: flags.stop,
        signal: terminal.signal,
        ...(tokenizer === undefined ? {} : { text: tokenizer.detokenizer() }),
      });
      if (flags.json === true) terminal.result(JSON.stringify(runRecord(pattern, result)));
      // Kilobytes on every system that Node runs on.
      const peak = process.resourceUsage().maxRSS * 1024;
      const start = { loadSeconds, warmsUp: providerOf(settings.device) !== "cpu" };
      terminal.note(formatRunStatistics(result, { peak, ...decoder.cacheBytes }, start));
      return { command: "run", device: settings.device, seconds: result.prefillSeconds + result.decodeSeconds };
    } finally {
      await decoder.release();
    }
  });
}

/** Generates, with the text on stdout as it becomes certain. */
async function stream(
  decoder: Decoder,
  ids: readonly number[],
  silent: boolean,
  options: Parameters<typeof generate>[2],
): Promise<GenerationResult> {
  const write = (text: string): void => {
    // A model can write control characters: a file gets them as they are, a terminal does not obey them.
    if (!silent) process.stdout.write(process.stdout.isTTY ? escapeForTerminal(text) : text);
  };
  for await (const event of generate(decoder, ids, options)) {
    if (event.kind === "prefilled") continue;
    write(event.text);
    if (event.kind !== "done") continue;
    // Without a tokenizer the ids are the text.
    write(options.text === undefined ? `${JSON.stringify(event.result.tokens)}\n` : "\n");
    return event.result;
  }
  throw new Error("the generation ended without a result");
}

function encode(text: string, { chat }: RunFlags, tokenizer: Tokenizer | undefined): number[] {
  if (tokenizer === undefined) throw new Error("text without a tokenizer");
  return chat === true ? tokenizer.encodeChat([{ role: "user", content: text }]) : tokenizer.encode(text);
}
