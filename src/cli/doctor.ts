/** `indexcache doctor`: which devices work on this machine, and how to get the others. */
import type { Command } from "commander";
import { RuntimeFailure } from "../base/errors.ts";
import { doctorRecord, formatDoctorReport } from "../report/doctor-report.ts";
import { unavailability } from "../runtime/device/device.ts";
import { diagnose } from "../runtime/device/diagnosis.ts";
import type { Flags } from "./arguments/declared-option.ts";
import { deviceOption, outputOptions } from "./arguments/options.ts";
import type { Terminal } from "./console/terminal.ts";
import { addWork } from "./console/work.ts";

const options = [deviceOption("look at this device and the CPU only"), ...outputOptions] as const;

const help = `
Every device multiplies matrices for a second, in a process of its own; the result is compared with the CPU's.
Exit code 3 if the CPU or the device of --device fails.

Examples:
  $ indexcache doctor
  $ indexcache doctor --device cuda:1 --json`;

export function addDoctorCommand(program: Command): void {
  const command = program.command("doctor").description("Show which devices work here, and what the others lack");
  addWork(command, { options, help }, examine);
}

async function examine(flags: Flags<typeof options>, terminal: Terminal): Promise<void> {
  const diagnosis = await diagnose(flags.device);
  terminal.answer(doctorRecord(diagnosis), () => formatDoctorReport(diagnosis));
  const required = diagnosis.checks.filter(({ device }) => device === "cpu" || device === flags.device);
  const failed = required.find(({ lacks }) => lacks.length > 0);
  if (failed !== undefined) throw new RuntimeFailure(unavailability(failed));
}
