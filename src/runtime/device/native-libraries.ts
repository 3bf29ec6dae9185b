/**
 * What the native libraries need, found out without loading them: a failed load writes a red paragraph to stderr, and one
 * of another version may take the process with it.
 */
import { execFile } from "node:child_process";
import { createReadStream, existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { z } from "zod";

const run = promisify(execFile);

/** Where the package of ONNX Runtime is, its version, and the folder that its native libraries lie in. */
export interface RuntimePackage {
  root: string;
  version: string;
  libraries: string;
}

export function runtimePackage(): RuntimePackage {
  const require = createRequire(import.meta.url);
  const manifest = require.resolve("onnxruntime-node/package.json");
  const { version } = z.object({ version: z.string() }).parse(require(manifest));
  const root = dirname(manifest);
  return { root, version, libraries: join(root, "bin", "napi-v6", process.platform, process.arch) };
}

/** What the dynamic loader says of a library. */
export interface LoaderView {
  /** Not a library that this machine can load at all. */
  foreign: boolean;
  /** Libraries that it needs, itself or through others, and that are not found. */
  missing: string[];
  /** Versions of found libraries that are too old for it, such as `GLIBC_2.38`. */
  outdated: string[];
}

/** Asks `ldd`, which is the loader itself. Undefined where there is none: then only a load can tell. */
export async function askLoader(file: string): Promise<LoaderView | undefined> {
  try {
    const { stdout, stderr } = await run("ldd", [file], { env: { ...process.env, LC_ALL: "C" } });
    return {
      foreign: false,
      missing: unique(stdout, /^\s*(\S+) => not found/gm),
      outdated: unique(`${stdout}\n${stderr}`, /version `([^']+)' not found/g),
    };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    return { foreign: true, missing: [], outdated: [] };
  }
}

/** Is there a library of this name where the loader looks? */
export async function hasLibrary(name: string): Promise<boolean> {
  const named = (process.env.LD_LIBRARY_PATH ?? "").split(":").filter((folder) => folder !== "");
  if ([...named, ...defaultFolders()].some((folder) => existsSync(join(folder, name)))) return true;
  // Not on the PATH of ordinary users everywhere.
  for (const ldconfig of ["ldconfig", "/sbin/ldconfig"]) {
    try {
      const { stdout } = await run(ldconfig, ["-p"], { maxBuffer: 2 ** 26 });
      const architecture = process.arch === "arm64" ? "AArch64" : "x86-64";
      return stdout.split("\n").some((line) => line.trim().startsWith(`${name} (`) && line.includes(architecture));
    } catch {
      // No ldconfig, or no cache: the folders above are all there is to look at.
    }
  }
  return false;
}

/** Where the loader looks without being told: Fedora's, everyone's and Debian's. */
function defaultFolders(): string[] {
  const debian = `/usr/lib/${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu`;
  return ["/lib64", "/usr/lib64", "/lib", "/usr/lib", debian];
}

/** The version of ONNX Runtime that a library of it was built as; undefined where it does not carry one. */
export async function builtVersion(file: string): Promise<string | undefined> {
  // A C string of its own. Other versions in there (CUDA's, cuDNN's) have another first number or another shape.
  const pattern = /^\0(1\.\d\d\.\d+)\0/;
  const most = 16;
  let tail: Buffer = Buffer.alloc(0);
  for await (const block of createReadStream(file, { highWaterMark: 2 ** 22 })) {
    const bytes: Buffer = Buffer.concat([tail, block as Buffer]);
    // The provider is hundreds of megabytes of code for GPUs, and every command that uses one looks here.
    for (let at = bytes.indexOf("\x001."); at >= 0; at = bytes.indexOf("\x001.", at + 1)) {
      const version = pattern.exec(bytes.toString("latin1", at, at + most))?.[1];
      if (version !== undefined) return version;
    }
    tail = bytes.subarray(-most);
  }
  return undefined;
}

function unique(text: string, pattern: RegExp): string[] {
  return [...new Set([...text.matchAll(pattern)].map((match) => match[1] ?? ""))];
}
