/** `indexcache search`: finds a pattern, writes it down, survives interruptions. */
import type { Command } from "commander";
import { InputError } from "../../base/errors.ts";
import { counted } from "../../base/quantities.ts";
import { isThere } from "../../base/user-files.ts";
import { readJournal } from "../../formats/journal.ts";
import { formatPatternFile, writePatternFile } from "../../formats/pattern-file.ts";
import type { PatternFile } from "../../formats/pattern-schema.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { formatCount } from "../../report/quantities.ts";
import { formatSearchReport } from "../../report/search/search-report.ts";
import { formatStatus, statusRecord } from "../../report/search/search-status.ts";
import type { PatternEvaluator } from "../../runtime/measurement.ts";
import type { SearchResult } from "../../search/events.ts";
import { measuredObjective } from "../arguments/calibration-mix.ts";
import { requireSensibleJournal } from "../arguments/journal-options.ts";
import { addModelArgument } from "../arguments/options.ts";
import { withResume } from "../console/interruption.ts";
import { deviceWords, modelWords, proposedCommand, resultBeside } from "../console/next-command.ts";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";
import { modelPath } from "../live/server-options.ts";
import { describeEffort } from "../live/server-words.ts";
import { applyEffort } from "./effort.ts";
import { Measuring } from "./measuring.ts";
import { withSpeedups, writePareto } from "./predicted-latency.ts";
import { addMergeCommand } from "./search-merge.ts";
import { type SearchFlags, searchOptions } from "./search-options.ts";
import { showPlan, showPlanOfConfig } from "./search-plan.ts";
import { openJournals, recordOf, runSearch } from "./search-run.ts";
import { openSource, prepareSearch, type SearchWork } from "./search-work.ts";
import { strategyLines } from "./strategy-options.ts";

/**
 * Searches by fewer sequences than this end in another pattern than the best one in more than a quarter of all cases, and
 * in one of twenty cost twice as much on other text as those by eight (docs/log.md, `tools/landscape/compare.js sequences`).
 */
const FEW_SEQUENCES = 8;

const help = `
Every layer starts Full but those that the model itself shares. FILE gets the best pattern of each wanted retention and how
it was found; FILE.journal.jsonl gets every evaluation as it is made, so that --resume can continue after Ctrl-C, a crash or
a full disk. Without -o nothing is written, and an interrupted search begins anew.

Strategies (losses within 1e-5 nats are ties, the lowest layer wins):
${strategyLines()
  .map((line) => `  ${line}`)
  .join("\n")}

--retain: fractions of the layers (1/4, 0.25; rounded, at least one), counts of Full layers (12), or with --latency what is
predicted to be so many times as fast as every layer Full (1.5x).

Examples:
  $ indexcache search -o demo-pattern.json              the demo model on its own calibration set
  $ indexcache search ./model -c text.jsonl --retain 1/2,1/4,1/8 --holdout 1/4 -o patterns.json
  $ indexcache search ./model -c text.jsonl --retain 1/4 -o quarter.json --resume
  $ indexcache search ./model -c text.jsonl --pipeline-stages 4 --engine vllm -o stages.json
  $ indexcache search ./model -c text.jsonl --effort quick -o quick.json
  $ indexcache search ./model -c text.jsonl --objective kl --dry-run
  $ indexcache search ./model -c ruler:vt,niah_multikey_2 --retain 1/4 -o answers.json
  $ indexcache search ./model -c text.jsonl=0.5 -c qa.jsonl=0.5 --objective answer -o mixed.json
  $ indexcache search --server http://127.0.0.1:8000 -m ./GLM-5.1 -c text.jsonl --race --strategy greedy -o glm.json
  $ indexcache search --status quarter.json.journal.jsonl`;

export function addSearchCommand(program: Command): void {
  const command = program.command("search").description("Search the patterns that keep the loss lowest");
  addModelArgument(command);
  command.enablePositionalOptions();
  const shown = "retain output calibration holdout effort strategy objective device server resume dry-run";
  const stopping = "Stopping after the layer at hand; Ctrl-C again kills";
  addWork(
    command,
    { options: searchOptions, help, shown, stopping },
    (model: string | undefined, flags: SearchFlags, terminal: Terminal) => {
      const path = modelPath(command, model, flags);
      const effort = applyEffort(command);
      if (effort !== undefined) terminal.note(`effort ${flags.effort}: ${effort || "--strategy replaces it"}`);
      return search(path, flags, terminal);
    },
  );
  addMergeCommand(command);
}

async function search(path: string | undefined, flags: SearchFlags, terminal: Terminal): Promise<void> {
  if (flags.status !== undefined) return await showStatus(flags.status, terminal);
  await requireSensibleJournal(flags);
  const plansOnly = flags.dryRun === true && flags.server === undefined;
  if (plansOnly && (await showPlanOfConfig(path, flags, terminal))) return;
  const opened = await openSource(path, flags, terminal);
  try {
    const work = await prepareSearch(opened, flags, terminal);
    if (flags.dryRun !== true) return await searchAndReport(work);
    tellPlan(work);
    await measure(work, (evaluator) => showPlan(work, evaluator));
  } finally {
    await opened.release();
  }
}

async function searchAndReport(work: SearchWork): Promise<void> {
  const { source, space, sequences, heldOut, flags, terminal } = work;
  const { journal, reused } = await openJournals(work);
  tellPlan(work);
  let written: string | undefined;
  try {
    const measuring = new Measuring(journal, reused, measuredObjective(work.objective), work.weigh(sequences));
    const write = async (result: SearchResult, out: readonly number[]): Promise<PatternFile> => {
      const file = withSpeedups(recordOf(result, work, measuring, out), work.predicted);
      if (flags.output !== undefined) await writePatternFile(flags.output, file);
      written = flags.output;
      return file;
    };
    const result = await measure(work, async (evaluator) => {
      measuring.tellResumed(terminal);
      // What was searched for is safe before anything that only adorns it can fail, or be interrupted.
      const found = await runSearch(work, evaluator, measuring, journal, async (safe) => void (await write(safe, [])));
      const open = measuring.incomplete(reported(space.start, found), heldOut, "loss");
      if (open.length > 0) terminal.note(`measuring ${counted(open.length, "pattern")} on held-out sequences`);
      await measuring.complete(evaluator, open, heldOut, "loss", terminal);
      return found;
    });
    // KL of what is reported needs the model's own distributions: not kept while a search goes by the loss.
    const all = [...sequences, ...heldOut];
    const open = source.divergences ? measuring.incomplete(reported(space.start, result), all, "kl") : [];
    if (open.length > 0) {
      terminal.note(`measuring KL of ${counted(open.length, "pattern")}`);
      await source.use("kl", (evaluator) => measuring.complete(evaluator, open, all, "kl", terminal));
    }
    const file = await write(result, heldOut);
    if (flags.pareto !== undefined && work.predicted !== undefined)
      await writePareto(flags.pareto, file, work.predicted);
    terminal.result(flags.json === true ? formatPatternFile(file) : formatSearchReport(file, terminal.resultWidth));
    if (flags.output !== undefined) terminal.note(`written: ${flags.output}`);
    terminal.next("whether answers stay as good", evalCommand(work, file));
  } catch (error) {
    if (written !== undefined) terminal.warn(`the search itself has ended, and its pattern is in ${written}`);
    throw withResume(error, "every finished evaluation", journal?.path);
  } finally {
    await journal?.close();
  }
}

/** Opens the evaluator that the search goes by, and says what is known of it. */
function measure<T>(work: SearchWork, task: (evaluator: PatternEvaluator) => Promise<T>): Promise<T> {
  const { source, objective, foreseen, terminal } = work;
  return source.use(measuredObjective(objective), async (evaluator) => {
    for (const line of evaluator.plan) terminal.detail(line);
    const seconds = source.secondsEach?.();
    if (seconds !== undefined) terminal.note(describeEffort(foreseen.evaluations, foreseen.exact, seconds));
    return task(evaluator);
  });
}

/** The patterns that a report compares: the model's own, those that were wanted, and greedy's if they were refined. */
function reported(start: Pattern, { patterns, refinements = [] }: SearchResult): Pattern[] {
  return [
    ...new Set([
      start,
      ...patterns.map(({ pattern }) => pattern),
      ...refinements.map(({ firstPattern }) => firstPattern),
    ]),
  ];
}

/** Before anything long begins: how much there is to do, and whether there is enough to judge by. */
function tellPlan({ method, foreseen, space, targets, sequences, set, flags, terminal }: SearchWork): void {
  if (sequences.length < FEW_SEQUENCES) {
    terminal.warn(
      `${counted(sequences.length, "sequence")} ${sequences.length === 1 ? "is" : "are"} few to search by: on trained models with known optima, fewer than ` +
        `${FEW_SEQUENCES} often led to a worse pattern than the text would have (docs/search.md); give more text, or a larger --sequences`,
    );
  }
  if (flags.dryRun === true) return;
  const about = foreseen.exact ? "" : "about ";
  terminal.note(
    `plan: ${method.strategy.name} to ${targets.join(", ")} Full, ${about}${counted(foreseen.evaluations, "pattern")} on up to ${counted(sequences.length, "sequence")} ` +
      `of ${formatCount(set.sequenceLength)} tokens; the first one shows how long that takes, --dry-run does no more than that`,
  );
  const every = targets.reduce((total, retain) => total + space.count(retain), 0);
  const few =
    every === 1 ? "there is only 1 pattern of that size" : `there are only ${formatCount(every)} patterns of that size`;
  if (foreseen.isOptimum) {
    terminal.note(`${few}: all of them are measured, and the result is the optimum on this text`);
  } else if (method.race === undefined && every < foreseen.evaluations) {
    terminal.note(`${few}: --strategy exhaustive measures all of them, and its result is the optimum`);
  }
}

/** A search has tested losses on one text. What answers are worth is another question, and this is how to ask it. */
function evalCommand({ path: model, source, flags }: SearchWork, { patterns = [] }: PatternFile): string {
  const { output, server, allowRemote, device, devices, dtype } = flags;
  const wanted =
    output === undefined
      ? patterns.map(({ index_topk_pattern: letters }) => letters)
      : patterns.length < 2
        ? [output]
        : patterns.map(({ full_layers: full }) => `${output}@${full}`);
  const remote = allowRemote === true ? ["--allow-remote"] : [];
  // A CPU measures losses in float16, and generates in float32 alone.
  const ofTokens = source.tool.device?.includes("cuda") ? dtype : "float32";
  return proposedCommand([
    "eval",
    ...(server === undefined ? modelWords(model) : ["--server", server, ...remote, "-m", model]),
    ...wanted.flatMap((pattern) => ["--pattern", pattern]),
    ...(server === undefined ? deviceWords({ device, devices, dtype: ofTokens }) : []),
    ...(output === undefined ? [] : ["-o", resultBeside(output, "eval")]),
  ]);
}

/**
 * Where a search stands, from its journal alone.
 * @param given the journal, or the `-o` file that it stands beside
 */
async function showStatus(given: string, terminal: Terminal): Promise<void> {
  const path = await journalOf(given);
  const content = await readJournal(path);
  if (content === undefined) throw new InputError(`Journal "${path}" is empty`, { hint: "nothing was measured yet" });
  const record = statusRecord(content);
  terminal.answer(record, () => formatStatus(record));
}

async function journalOf(path: string): Promise<string> {
  const beside = `${path}.journal.jsonl`;
  return (await isThere(beside)) ? beside : path;
}
