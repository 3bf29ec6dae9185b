/** A program named nvidia-smi, first on the PATH, that prints what a machine's own would. */
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";

/** What `nvidia-smi --query-gpu=index,name,memory.total,memory.free,driver_version,compute_cap,uuid` prints. */
export const twoGpus = [
  "0, NVIDIA H200, 143771, 143155, 580.95.05, 9.0, GPU-aaaaaaaa-0000",
  "1, NVIDIA L4, 23034, 22563, 580.95.05, 8.9, GPU-bbbbbbbb-0000",
].join("\n");

export const brokenDriver =
  "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.";

/** Puts it into a folder of its own; gives a PATH that begins with that. */
export function pathWithNvidiaSmi(folder: string, output: string, exitCode = 0): string {
  const own = join(folder, "driver");
  mkdirSync(own, { recursive: true });
  writeFileSync(
    join(own, "nvidia-smi"),
    `#!/bin/sh\nPATH=/usr/bin:/bin\ncat <<'END'\n${output}\nEND\nexit ${exitCode}\n`,
  );
  chmodSync(join(own, "nvidia-smi"), 0o755);
  return own + delimiter + (process.env.PATH ?? "");
}
