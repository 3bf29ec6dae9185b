/** `indexcache export`: a checkpoint becomes a model folder with ONNX graphs. */
import type { Command } from "commander";
import { findModel } from "../checkpoint/hub-cache.ts";
import { exportModel } from "../graph/exported/export.ts";
import { counted, formatBytes, formatDuration, formatRate } from "../report/quantities.ts";
import { formatFields } from "../report/text-table.ts";
import { type Flags, required } from "./arguments/declared-option.ts";
import { outputOptions } from "./arguments/options.ts";
import { ByteCount } from "./console/patience.ts";
import type { Terminal } from "./console/terminal.ts";
import { addWork } from "./console/work.ts";

const options = [
  required("-o, --output <folder>", "the new model folder, or the checkpoint's own"),
  ...outputOptions,
] as const;

const help = `
The folder holds model.onnx, one small graph a stage, the checkpoint's config and tokenizer, and a manifest with the hash
of every file. Weights are read where they are in the safetensors files: those are copied (by reference where the file
system can) into a new folder, and left alone where the output is the checkpoint's own folder.

Examples:
  $ indexcache export ./GLM-checkpoint -o ./model
  $ indexcache export ./GLM-checkpoint -o ./GLM-checkpoint    adds the graphs, copies nothing`;

export function addExportCommand(program: Command): void {
  const command = program
    .command("export")
    .description("Export a Hugging Face checkpoint to ONNX")
    .argument("<checkpoint>", "folder with config.json and safetensors, or owner/name in the Hugging Face cache");
  addWork(command, { options, help, stopping: "Stopping" }, run);
}

async function run(checkpoint: string, flags: Flags<typeof options>, terminal: Terminal): Promise<void> {
  const progress = new ByteCount(terminal, "reading and checking weights");
  const report = await exportModel(await findModel(checkpoint), flags.output, {
    signal: terminal.signal,
    onProgress: (done, total) => progress.reach(done, total),
  });
  terminal.answer(report, () =>
    formatFields([
      ["Model", report.target],
      ["Architecture", `${report.architecture}, ${report.layers} layers`],
      ["Indexers", report.indexerLayers],
      [
        "Weights",
        `${formatBytes(report.bytes)} in ${counted(report.weightFiles.length, "file")}, ${report.inPlace ? "used in place" : "copied"}`,
      ],
      ["Graphs", `${report.graphs}, ${formatBytes(report.graphBytes)}`],
      ["Left out", report.unusedTensors > 0 && `${report.unusedTensors} tensors that the model does not use`],
      ["Time", `${formatDuration(report.seconds)}, ${formatRate(report.bytes / 1e6, report.seconds, "MB")}`],
    ]),
  );
}
