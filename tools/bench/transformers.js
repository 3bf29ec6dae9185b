/** The same prefill in transformers (eager and SDPA) and in the ONNX file of its own exporter. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { measurePrefill } from "./inference.js";

/** Rows of a table: length, our seconds, and each rival's seconds with the ratio to ours. */
export async function besideTransformers(model, python, pattern, lengths, threads) {
  const prefill = (attention) =>
    runPython(python, "transformers_prefill.py", [model.path, "--attention", attention, ...common(lengths, threads)]);
  const rivals = {
    "transformers eager": prefill("eager"),
    "transformers SDPA": prefill("sdpa"),
    "transformers' ONNX export": runPython(python, "transformers_onnx.py", [model.path, ...common(lengths, threads)]),
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

function common(lengths, threads) {
  return ["--lengths", lengths.join(","), "--threads", String(threads), "--repeats", "3"];
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
