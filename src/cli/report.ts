/** `indexcache report`: what was measured, as one page. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { InputError } from "../base/errors.ts";
import { describeSystemError, systemErrorCode, writeFileAtomically } from "../base/files.ts";
import { addOutputOptions, type OutputFlags } from "./arguments/options.ts";
import { Terminal } from "./console/terminal.ts";
import { helpText } from "./help/help-text.ts";

interface ReportFlags extends OutputFlags {
  output: string;
}

const help = `
Files are known by what is in them: pattern files of search -o (a journal beside one gives the error bars), and the files of
analyze -o, bench -o and eval -o, several of a kind if you like. All but bench have to be of one model. What has no file has
no section. The first pattern file is the one that serving arguments are given for.

FOLDER gets report.html, which is complete in itself, report.md, and its charts as SVG.

Examples:
  $ indexcache report quarter.json -o report
  $ indexcache report quarter.json beam.json analysis.json bench.json eval.json -o report`;

export function addReportCommand(program: Command): void {
  const command = program
    .command("report")
    .description("Make a page of what search, analyze, bench and eval have written")
    .argument("<files...>", "result files, of any kind and in any order")
    .requiredOption("-o, --output <folder>", "where the report goes");
  addOutputOptions(command);
  command.addHelpText("after", helpText(help)).action((files: string[], flags: ReportFlags) => report(files, flags));
}

async function report(files: readonly string[], flags: ReportFlags): Promise<void> {
  const terminal = new Terminal(flags);
  // Charts bring a library along that no other command needs.
  const { readEvidence } = await import("../report/document/evidence.ts");
  const { reportDocument } = await import("../report/document/report-document.ts");
  const { htmlPage } = await import("../report/document/html-page.ts");
  const { chartFile } = await import("../report/document/chart.ts");
  const document = await reportDocument(await readEvidence(files));
  await makeFolder(flags.output);
  const contents = [
    ["report.html", htmlPage(document)],
    ["report.md", document.markdown],
    ...document.charts.map((chart) => [chart.name, chartFile(chart)]),
  ] as [string, string][];
  for (const [name, content] of contents) await writeFileAtomically(join(flags.output, name), content);
  const written = contents.map(([name]) => join(flags.output, name));
  terminal.result(flags.json === true ? JSON.stringify({ written }, null, 2) : written.join("\n"));
}

async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === undefined) throw error;
    const reason = code === "EEXIST" || code === "ENOTDIR" ? "it is a file" : describeSystemError(code);
    throw new InputError(`Cannot write into "${path}": ${reason}`, { hint: "-o names a folder", cause: error });
  }
}
