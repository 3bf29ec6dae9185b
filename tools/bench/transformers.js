/** The same prefill in transformers (eager and SDPA) and in the ONNX file of its own exporter. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { measurePrefill } from "./inference.js";

/** Rows of a table: length, our seconds, and each rival's seconds with the ratio to ours. */
export async function besideTransformers(model, python, pattern, lengths, threads) {
  // A long prefill takes transformers minutes: once is enough to see the ratio.
  const groups = [
    { lengths: lengths.filter((length) => length <= 4096), repeats: 3 },
    { lengths: lengths.filter((length) => length > 4096), repeats: 1 },
  ].filter((group) => group.lengths.length > 0);
  const measure = (script, args) =>
    groups.flatMap((group) =>
      runPython(python, script, [
        model.path,
        ...args,
        ...["--lengths", group.lengths.join(","), "--threads", String(threads), "--repeats", String(group.repeats)],
      ]),
    );
  const rivals = {
    "transformers eager": measure("transformers_prefill.py", ["--attention", "eager"]),
    "transformers SDPA": measure("transformers_prefill.py", ["--attention", "sdpa"]),
    "transformers' ONNX export": measure("transformers_onnx.py", []),
  };
  const body = [];
  for (const length of lengths) {
    const { ours } = await measurePrefill(model, { ours: pattern }, length, { threads, repeats: 3 });
    const cells = Object.values(rivals).map((lines) => {
      const seconds = lines.find((line) => line.length === length)?.seconds_median;
      return seconds === undefined ? "not run" : `${seconds.toFixed(2)} s (${(seconds / ours).toFixed(1)}x)`;
    });
    body.push([String(length), `${ours.toFixed(2)} s`, ...cells]);
  }
  return { head: ["tokens", "indexcache", ...Object.keys(rivals)], body };
}

/** Prints one JSON line for each measurement; anything else it says goes to stderr. */
function runPython(python, script, args) {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const { stdout, stderr, status } = spawnSync(python, [path, ...args], { encoding: "utf8", maxBuffer: 1 << 26 });
  if (status !== 0) throw new Error(`${script} failed\n${stderr}`);
  return stdout
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line));
}
