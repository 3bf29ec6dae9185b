/** `indexcache report`: what was measured, as one page. */
import { join } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { makeFolder, writeFileAtomically } from "../base/files.ts";
import { isThere } from "../base/user-files.ts";
import { findModel } from "../checkpoint/hub-cache.ts";
import { fullLayers } from "../pattern/pattern.ts";
import type { PromptLengths } from "../report/document/prefill-forecast.ts";
import { type Flags, option, required } from "./arguments/declared-option.ts";
import { outputOptions } from "./arguments/options.ts";
import { proposeUse } from "./console/next-command.ts";
import type { Terminal } from "./console/terminal.ts";
import { addWork } from "./console/work.ts";

const options = [
  required("-o, --output <folder>", "where the report goes"),
  option(
    "--lengths <list>",
    "lengths of your prompts in tokens and how often they come: 55000:0.5,280k:0.1 (weights need not sum to 1)",
    promptLengths,
  ),
  ...outputOptions,
] as const;

const help = `
Files are known by what is in them: pattern files of search -o (a journal beside one gives the error bars), and the files of
analyze -o, bench -o, bench --latency and eval -o, several of a kind if you like. All but those of bench have to be of one
model. What has no file has no section. The report opens with a verdict on the first pattern file: what is kept, what is
gained, whether quality holds; serving arguments are given for it.

FOLDER gets report.html, which is complete in itself, report.md, and its charts as SVG.

Examples:
  $ indexcache report quarter.json -o report
  $ indexcache report quarter.json beam.json analysis.json bench.json eval.json -o report
  $ indexcache report quarter.json latency.json eval.json --lengths 55000:0.5,280000:0.1 -o report`;

export function addReportCommand(program: Command): void {
  const command = program
    .command("report")
    .description("Make a page of what search, analyze, bench and eval have written")
    .argument("<files...>", "result files, of any kind and in any order");
  addWork(command, { options, help }, report);
}

async function report(files: readonly string[], flags: Flags<typeof options>, terminal: Terminal): Promise<void> {
  // Charts bring a library along that no other command needs.
  const { readEvidence } = await import("../report/document/evidence.ts");
  const { reportDocument } = await import("../report/document/report-document.ts");
  const { htmlPage } = await import("../report/document/html-page.ts");
  const { chartFile } = await import("../report/document/chart.ts");
  const evidence = await readEvidence(files);
  const document = await reportDocument(evidence, flags.lengths);
  await makeFolder(flags.output, { what: `Cannot write into "${flags.output}"`, hint: "-o names a folder" });
  const contents = [
    ["report.html", htmlPage(document)],
    ["report.md", document.markdown],
    ...document.charts.map((chart) => [chart.name, chartFile(chart)]),
  ] as [string, string][];
  for (const [name, content] of contents) await writeFileAtomically(join(flags.output, name), content);
  const written = contents.map(([name]) => join(flags.output, name));
  terminal.answer({ written }, () => written.join("\n"));
  const [search] = evidence.searches;
  if (search === undefined) return;
  const { patterns = [], index_topk_pattern: letters, model } = search.file;
  const size = patterns.length < 2 ? "" : `@${fullLayers(letters).length}`;
  // Files know a model's name, which is its folder's or that of the cache.
  const folder = await findModel(model.name).catch(() => undefined);
  const isHere = folder !== undefined && (await isThere(folder));
  proposeUse(terminal, {
    pattern: `${search.path}${size}`,
    architecture: model.architecture,
    model: isHere ? model.name : undefined,
  });
}

/** `55000:0.5,280k:0.1`; a length without a weight weighs 1. */
function promptLengths(list: string): PromptLengths {
  const entries = list.split(",").map((part) => {
    const [, digits = "", thousand, weight = "1"] =
      /^([1-9]\d{0,8})(k?)(?::(\d{1,9}(?:\.\d{1,9})?))?$/i.exec(part.trim()) ?? [];
    const entry = { tokens: Number(digits) * (thousand === "" ? 1 : 1024), weight: Number(weight) };
    if (digits === "" || entry.weight === 0) {
      throw new InvalidArgumentError("It must be tokens:weight with commas between, such as 55000:0.5,280k:0.1.");
    }
    return entry;
  });
  if (new Set(entries.map(({ tokens }) => tokens)).size < entries.length) {
    throw new InvalidArgumentError("It names a length twice.");
  }
  return { entries: entries.sort((a, b) => a.tokens - b.tokens) };
}
