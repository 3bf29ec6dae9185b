/** `indexcache server URL`: what runs there, whether patterns act, and the pattern back after a run that was killed. */
import type { Command } from "commander";
import { GateFailure, InputError, UsageError } from "../../base/errors.ts";
import { type LiveModel, leftBehind } from "../../live/live-model.ts";
import { type Preflight, preflight, sparsestPattern } from "../../live/preflight.ts";
import { randomPrompts, type Verification, verify } from "../../live/verification.ts";
import { countFull, type Pattern, parsePattern } from "../../pattern/pattern.ts";
import { resolvePattern } from "../../pattern/schedule.ts";
import { formatCount, formatLossChange } from "../../report/quantities.ts";
import { formatFields, formatTable, left, right } from "../../report/text-table.ts";
import { type Flags, group, option } from "../arguments/declared-option.ts";
import { choosePattern, openCalibrationSet } from "../arguments/inputs.ts";
import { calibrationOptions, outputOptions } from "../arguments/options.ts";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";
import { connectionOptions, lossesOn, openForALook, openServedFolder } from "./server-options.ts";
import { describePreflight } from "./server-words.ts";

const options = [
  ...group(
    "What is looked at:",
    option("--restore", "set the pattern that the server was started with, and nothing else"),
    option("--verify", "does a pattern act there, and from which position on"),
    option("-p, --pattern <pattern>", "with --verify: letters, uniform:N, freq:N or a pattern file (with -m)"),
    option("-m, --model <folder>", "config.json and the tokenizer of the model, for -c and pattern files"),
  ),
  ...calibrationOptions,
  ...group("Server:", ...connectionOptions()),
  ...outputOptions,
] as const;

type LookFlags = Flags<typeof options>;

/** Prompts of a look, where no text is given. */
const prompts = 4;
/** Their length in index_topk, where the server takes that. */
const usualMultiple = 4;

const help = `
Without options: what runs there, the pattern now, and, where it can be switched, the noise of a repeated measurement and
whether patterns reach the model (on random tokens, unless -m and -c give text). The pattern is given back at the end.
--verify scores prompts under the server's own pattern and under -p: no token before index_topk may change, those after it
must. Exit code 1 where a pattern does not act.

Examples:
  $ indexcache server http://127.0.0.1:8000
  $ indexcache server http://127.0.0.1:8000 --verify -p FSSFFSSFFSSF
  $ indexcache server http://127.0.0.1:8000 --verify -p glm.json@1/4 -m ./GLM-5.1 -c text.jsonl --sequence-length 16384
  $ indexcache server http://127.0.0.1:8000 --restore`;

export function addServerCommand(program: Command): void {
  const command = program
    .command("server")
    .description("Look at a running vLLM or SGLang: what runs, whether patterns act, the pattern back after a kill")
    .argument("<url>", "address of the server");
  const shown = "verify restore pattern model calibration sequence-length api-key allow-remote json";
  addWork(command, { options, help, shown, stopping: "Stopping" }, look);
}

async function look(url: string, flags: LookFlags, terminal: Terminal): Promise<void> {
  if (flags.restore === true && flags.verify === true)
    throw new UsageError("--restore and --verify exclude each other");
  if (flags.pattern !== undefined && flags.verify !== true) throw new UsageError("-p goes with --verify");
  if ((flags.calibration === undefined) !== (flags.model === undefined) && flags.calibration !== undefined) {
    throw new UsageError("-c needs -m: the folder with config.json and the tokenizer of the model");
  }
  const served = await openForALook(url, flags, terminal);
  try {
    if (flags.restore === true) return await restore(served, flags, terminal);
    if (flags.verify === true) return await verifyPattern(served, flags, terminal);
    await show(served, flags, terminal);
  } finally {
    await served.release();
  }
}

async function restore(served: LiveModel, flags: LookFlags, terminal: Terminal): Promise<void> {
  const { description } = served;
  const before = description.state.letters;
  const done = await served.restore(true);
  if (!done) throw new InputError("The server did not take its pattern back");
  const letters = description.bootLetters ?? before;
  terminal.result(
    flags.json === true
      ? JSON.stringify({ before, letters })
      : before === letters
        ? `${letters} runs, as at the start: there was nothing to restore`
        : `${letters} runs again, as at the start; before it was ${before}`,
  );
}

async function show(served: LiveModel, flags: LookFlags, terminal: Terminal): Promise<void> {
  const { description, replicas } = served;
  const running = await replicas[0]?.adapter.running(terminal.signal);
  let found: Preflight | undefined;
  if (description.obstacles.length === 0 && (running ?? 0) === 0 && description.indexTopk !== undefined) {
    const { windows, indexTopk } = await promptsFor(served, flags, terminal);
    await served.prepare(terminal.signal);
    const losses = lossesOn(served, { windows }, { objective: "nll", indexTopk, concurrency: prompts }, terminal);
    found = await preflight(served, losses, [...windows.keys()], indexTopk, terminal.signal);
  }
  const { state, ...rest } = description;
  const measured = found && { noise: found.noise, sparsest: found.sparsest, change: found.change };
  terminal.answer({ ...rest, letters: state.letters, running, ...measured }, () =>
    formatFields(fieldsOf(served, running, found)),
  );
}

function fieldsOf(served: LiveModel, running: number | undefined, found: Preflight | undefined) {
  const { description } = served;
  const { title, servedModel, layers, indexTopk, state, tensorParallel, pipelineParallel, obstacles } = description;
  const full = countFull(state.letters);
  const left = leftBehind(description);
  const types = [
    ...(description.dtype === undefined ? [] : [description.dtype]),
    `KV cache ${description.kvCacheDtype ?? "unknown"}`,
    `logits ${description.headDtype ?? "unknown"}`,
  ];
  const fields: (readonly [string, string])[] = [
    ["Server", title],
    ["Model", `${servedModel}, ${layers} layers, index_topk ${indexTopk ?? "unknown"}`],
    ["Parallel", `tensor ${tensorParallel}, pipeline ${pipelineParallel}`],
    ["Types", types.join(", ")],
    ["Pattern", `${state.letters}, ${full} of ${layers} Full`],
    ...(left === undefined ? [] : [["Left behind", `${left} (--restore)`] as const]),
    ["Requests", running === undefined ? "the server does not say how many run" : `${formatCount(running)} under way`],
    ["Switching", obstacles.length === 0 ? "possible" : `not possible: ${obstacles.join("; ")}`],
  ];
  const measured = found === undefined ? [] : describePreflight(found).map((line) => ["Measured", line] as const);
  return [...fields, ...measured];
}

async function verifyPattern(served: LiveModel, flags: LookFlags, terminal: Terminal): Promise<void> {
  const { description } = served;
  const model = flags.model === undefined ? undefined : await openServedFolder(flags.model, terminal);
  const pattern = await patternOf(served, flags, model);
  const booted = parsePattern(description.state.letters.replaceAll("-", "S"), "the server's pattern");
  if (description.state.letters.includes("-") && booted === pattern) {
    terminal.result(
      `${pattern}: the server was started with it. Its Shared layers have no indexer, so the pattern cannot but act.`,
    );
    return;
  }
  if (pattern === served.ownPattern) {
    throw new UsageError(`${pattern} is the server's own pattern: nothing can change under it`, {
      hint: "give another one with -p; without it the sparsest is tried",
    });
  }
  await served.requireSwitchable(terminal.signal);
  const { windows, indexTopk } = await promptsFor(served, flags, terminal);
  await served.prepare(terminal.signal);
  const verification = await verify(served, pattern, windows, indexTopk, terminal.signal);
  terminal.answer(verification, () => formatVerification(verification, indexTopk));
  const [before, ...after] = verification.ranges;
  if (before?.acts === true) {
    throw new GateFailure(`Tokens before position ${indexTopk} change, which no pattern can bring about`, {
      hint: "something else differs between the measurements: another client, or a cache that is read",
    });
  }
  if (!after.some(({ acts }) => acts)) throw new GateFailure(`${pattern} does not act on this server`);
}

async function patternOf(
  served: LiveModel,
  { pattern }: LookFlags,
  model: Awaited<ReturnType<typeof openServedFolder>> | undefined,
): Promise<Pattern> {
  if (pattern === undefined) return sparsestPattern(served);
  if (model !== undefined) return await choosePattern(model, { pattern, offset: 2 });
  if (/\.json(@|$)/.test(pattern)) {
    throw new UsageError("a pattern file needs -m, so that it can be compared with the model", {
      hint: "or give its letters",
    });
  }
  const { layers } = served.description;
  return resolvePattern(pattern, { layers, indexers: served.ownPattern }, "--pattern");
}

/** Text where it is given, else random tokens, as long as the server takes. */
async function promptsFor(
  served: LiveModel,
  flags: LookFlags,
  terminal: Terminal,
): Promise<{ windows: Int32Array[]; indexTopk: number }> {
  const { indexTopk, vocabSize, maxModelLength } = served.description;
  if (flags.model !== undefined && flags.calibration !== undefined) {
    const model = await openServedFolder(flags.model, terminal);
    served.requireShape(model.config);
    const { sequences = prompts, calibration } = flags;
    const { windows } = await openCalibrationSet(model, calibration, { ...flags, sequences }, terminal);
    return { windows, indexTopk: model.config.indexTopk };
  }
  if (indexTopk === undefined || vocabSize === undefined) {
    throw new InputError("The server does not say its index_topk and vocabulary: give -m and -c");
  }
  const wanted = flags.sequenceLength ?? usualMultiple * indexTopk;
  const length = Math.min(wanted, (maxModelLength ?? Number.POSITIVE_INFINITY) - 1);
  terminal.note(`${flags.sequences ?? prompts} prompts of ${formatCount(length)} random tokens (-m and -c give text)`);
  return { windows: randomPrompts(flags.sequences ?? prompts, length, vocabSize), indexTopk };
}

function formatVerification({ pattern, own, ranges, prompts: count, begins }: Verification, indexTopk: number): string {
  const worst = ranges.reduce((most, range) => (range.change > most.change ? range : most));
  const table = formatTable(ranges, [
    right("Positions", ({ from, to }) => `${formatCount(from)} to ${formatCount(to - 1)}`),
    right("Loss", ({ change }) => formatLossChange(change)),
    right("Moved", ({ moved }) => moved.toExponential(1)),
    right("Noise", ({ noise }) => noise.toExponential(1)),
    left("Acts", ({ acts }) => (acts ? "yes" : "no")),
  ]);
  return [
    table,
    "",
    formatFields([
      ["Pattern", pattern],
      ["Against", own],
      ["Prompts", `${count}; up to ${indexTopk} tokens every indexer selects all keys`],
      ["Indexers", "ran where the letters are F, and nowhere else"],
      [
        "Begins",
        begins === undefined
          ? "no single position moves by more than the noise"
          : `position ${formatCount(begins)} is the first to move by more than noise and rounding; none can before ${formatCount(indexTopk)}`,
      ],
      [
        "Loses most",
        worst.change > 0 && worst.acts
          ? `${formatLossChange(worst.change)} at positions ${formatCount(worst.from)} to ${formatCount(worst.to - 1)}`
          : "nowhere more than the noise",
      ],
      ["Not shown", "how all Full compares with dense attention beyond index_topk; up to there they are the same"],
    ]),
  ].join("\n");
}
