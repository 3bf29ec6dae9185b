/** Where the result of `eval` goes, and whether it passes. */

import { GateFailure } from "../../base/errors.ts";
import { writeFileAtomically } from "../../base/files.ts";
import { type EvalResult, formatEvalResult, writeEvalResult } from "../../formats/eval-result.ts";
import { gateFailures } from "../../report/eval/eval-gate.ts";
import { formatJunit } from "../../report/eval/eval-junit.ts";
import { formatEvalMarkdown, formatEvalReport } from "../../report/eval/eval-report.ts";
import {
  deviceWords,
  modelWords,
  proposedCommand,
  resultBeside,
  resultsBeside,
  searchedFiles,
} from "../console/next-command.ts";
import { requireWritable } from "../console/output-file.ts";
import type { Terminal } from "../console/terminal.ts";
import type { EvalFlags } from "./eval-options.ts";

/** Looks at every file that will be written, before the work. */
export async function requireWritableOutputs({ output, junit }: EvalFlags): Promise<void> {
  await requireWritable(output);
  await requireWritable(junit, "--junit names the file itself");
}

/** @throws GateFailure where `--fail-on` says so, once everything is written */
export async function giveEvalResult(result: EvalResult, flags: EvalFlags, terminal: Terminal): Promise<void> {
  const { output, junit, failOn, json, markdown } = flags;
  if (output !== undefined) await writeEvalResult(output, result);
  if (junit !== undefined) await writeFileAtomically(junit, formatJunit(result, failOn));
  terminal.result(
    json === true
      ? formatEvalResult(result)
      : markdown === true
        ? formatEvalMarkdown(result)
        : formatEvalReport(result, terminal.resultWidth),
  );
  for (const path of [output, junit]) if (path !== undefined) terminal.note(`written: ${path}`);
  const failures = failOn === undefined ? [] : gateFailures(result, failOn);
  if (failures.length > 0) throw new GateFailure(`--fail-on ${failOn}: ${failures.join("; ")}`);
}

/** Whether a pattern is worth it is for `bench` to say; a model on a server is not timed here. */
export async function proposeAfterEval(path: string | undefined, flags: EvalFlags, terminal: Terminal): Promise<void> {
  const { pattern: patterns, output, server, from } = flags;
  if (patterns.length === 0 && from.length === 0) return;
  const searched = await searchedFiles(patterns);
  if (server === undefined && from.length === 0) {
    const [stem = output] = searched;
    const computing = deviceWords(flags, { alone: true });
    const timed = [...modelWords(path), ...patterns.flatMap((pattern) => ["-p", pattern]), ...computing];
    const written = stem === undefined || output === undefined ? [] : ["-o", resultBeside(stem, "bench")];
    terminal.next("what it saves", proposedCommand(["bench", ...timed, ...written]));
  } else if (output !== undefined) {
    const timed = await resultsBeside(searched, "bench");
    terminal.next("all on one page", proposedCommand(["report", ...searched, output, ...timed, "-o", "report"]));
  }
}
