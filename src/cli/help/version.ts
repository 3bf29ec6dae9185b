/** `indexcache --version --json`: what an issue or a record of a run needs to name. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { toolVersion } from "../../base/version.ts";
import { runtimeName } from "../../runtime/session/runtime-name.ts";
import { packageFolder } from "../arguments/options.ts";

export async function versionRecord(): Promise<Record<string, string | null>> {
  return {
    version: toolVersion,
    commit: (await checkedOutCommit()) ?? null,
    node: process.versions.node,
    onnxruntime: runtimeName.replace(/^.*?(?=\d)/, ""),
    platform: process.platform,
    architecture: process.arch,
  };
}

/** Of a checkout; an installed package is known by its version. */
async function checkedOutCommit(): Promise<string | undefined> {
  if (!existsSync(join(packageFolder, ".git"))) return undefined;
  try {
    const { stdout } = await promisify(execFile)("git", ["-C", packageFolder, "rev-parse", "HEAD"], { timeout: 5000 });
    return stdout.trim();
  } catch {
    // No git, or none that trusts this folder: the commit is not known.
    return undefined;
  }
}
