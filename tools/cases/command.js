/**
 * Stands for `indexcache` inside a case (`IC`). The cases were written when every model was measured on the demo's text
 * unless `-c` said otherwise; that text is what their expected losses come from. `-c` has to be given for any model but the
 * demo now, so that `loss` and `search` without one get the demo's. Everything else goes through as it is.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";

const root = join(import.meta.dirname, "..", "..");
const [command, ...rest] = process.argv.slice(2);
const measures = command === "loss" || command === "search";
const hasCalibration = rest.some((argument) => argument === "-c" || /^--calibration(=|$)/.test(argument));
const added = measures && !hasCalibration ? ["-c", join(root, "calibration", "demo.jsonl")] : [];
const { status } = spawnSync(process.execPath, [join(root, "bin", "indexcache.js"), command, ...rest, ...added], {
  stdio: "inherit",
});
process.exit(status ?? 1);
