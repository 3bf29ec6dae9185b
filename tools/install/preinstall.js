/**
 * Runs when the package is installed. Beside other packages npm puts onnxruntime-node next to this one and not below it: its
 * install script then finds the real global-agent instead of the stand-in that this package bundles, and downloads. npm
 * runs every preinstall before any postinstall, so the stand-in can still be laid where that script looks first.
 */
import { cpSync, existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const runtime = packageFolder(createRequire(import.meta.url), "onnxruntime-node");
const standIn = join(import.meta.dirname, "..", "..", "node_modules", "global-agent");
if (runtime !== undefined && existsSync(standIn)) {
  const found = packageFolder(createRequire(join(runtime, "package.json")), "global-agent");
  if (found === undefined || !isStandIn(found)) {
    cpSync(standIn, join(runtime, "node_modules", "global-agent"), { recursive: true, dereference: true });
  }
}

/** The nearest folder of this name, looked for as `require` does. */
function packageFolder(require, name) {
  return (require.resolve.paths(name) ?? []).map((path) => join(path, name)).find((path) => existsSync(path));
}

function isStandIn(folder) {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).private === true;
}
