/** The same prefill in transformers (eager and SDPA), in turn with ours, and in the ONNX file of its own exporter. */
import { spawn, spawnSync } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { clocks } from "../../dist/base/clock.js";
import { spreadOf } from "../../dist/report/bench/bench-record.js";
import { openDecoder, openOverlappedDecoder, overlaps } from "../../dist/runtime/generate/decoder.js";
import { requirePrefill, someIds } from "./inference.js";

/** Threads that still spin after a run would take the other side's cores. */
const pause = 300;

/**
 * One row for each length and rival: medians of the clock and of CPU time, ours and theirs in turn, and how far the last
 * logits are apart.
 * @param rivals of "eager", "sdpa", and "onnx" for the exporter, which runs by itself
 * @param repeats of a length
 */
export async function besideTransformers(model, python, pattern, { lengths, threads, rivals, repeats }) {
  const rows = [];
  const settings = { device: "cpu", threads, capacity: Math.max(...lengths) };
  // As `run` opens it.
  const open = overlaps(settings, model.config, { prompt: lengths[0], newTokens: 1 })
    ? openOverlappedDecoder
    : openDecoder;
  const decoder = await open(model, pattern, settings);
  await decoder.prefill(someIds(64, model.config.vocabSize));
  for (const attention of rivals.filter((rival) => rival !== "onnx")) {
    const args = [model.path, "--threads", threads, "--attention", attention];
    const rival = await openRival(python, args);
    for (const length of lengths) {
      const ids = someIds(length, model.config.vocabSize);
      const ours = [];
      const theirs = [];
      for (let turn = 0; turn < repeats(length); turn++) {
        ours.push(await prefill(model, decoder, pattern, ids));
        await sleep(pause);
        theirs.push(await rival.ask({ ids }));
        if (theirs.at(-1).skipped !== undefined) break;
        await sleep(pause);
      }
      const shown = { rival: `${attention} (${rival.versions})`, length, turns: theirs.length };
      if (theirs.some(({ skipped }) => skipped !== undefined)) rows.push({ ...shown, ours });
      else {
        // Equal index scores go to any key in transformers: a run that takes the lowest, as we do, is compared.
        const compared = await rival.ask({ ids, ties: "lowest" });
        rows.push({ ...shown, ours, theirs, difference: largestDifference(ours[0].logits, compared.logits) });
      }
      process.stderr.write(`${JSON.stringify(withoutLogits(rows.at(-1)))}\n`);
    }
    rival.close();
  }
  await decoder.release();
  if (rivals.includes("onnx")) {
    for (const line of exportedPrefills(model, python, lengths, threads)) {
      const ours = rows.find(({ length }) => length === line.length)?.ours ?? [];
      const theirs = line.seconds_median === undefined ? undefined : [{ seconds: line.seconds_median }];
      rows.push({ rival: "its ONNX export", length: line.length, turns: 3, ours, theirs });
    }
  }
  return {
    head: ["tokens", "beside", "turns", "ours s", "theirs s", "ratio", "ours CPU s", "theirs CPU s", "ratio", "logits"],
    body: rows.map(({ rival, length, turns, ours, theirs, difference }) => [
      length,
      rival,
      turns,
      ...compared(ours, theirs, "seconds"),
      ...compared(ours, theirs, "cpu"),
      difference === undefined ? "" : difference.toExponential(1),
    ]),
  };
}

async function prefill(model, decoder, pattern, ids) {
  const made = decoder.indexerExecutions.made;
  decoder.rewind(0);
  const [wall, cpu] = [clocks.wall(), clocks.cpu()];
  const logits = await decoder.prefill(ids);
  const result = { seconds: clocks.wall() - wall, cpu: clocks.cpu() - cpu, logits };
  requirePrefill(model, decoder, pattern, ids.length, made);
  return result;
}

function withoutLogits({ ours, theirs, ...row }) {
  const times = (runs) => runs?.map(({ seconds, cpu }) => [seconds, cpu].map((value) => Number(value.toFixed(4))));
  return { ...row, ours: times(ours), theirs: times(theirs) };
}

/** Medians of both sides, and theirs over ours. */
function compared(ours, theirs, clock) {
  const median = (runs) => spreadOf(runs.map((run) => run[clock])).median;
  if (theirs === undefined) return [median(ours).toFixed(2), "not run", ""];
  if (theirs[0][clock] === undefined) return ["", "", ""];
  return [median(ours).toFixed(2), median(theirs).toFixed(2), `${(median(theirs) / median(ours)).toFixed(1)}x`];
}

function largestDifference(a, b) {
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i])), 0);
}

/** A process that answers a line with a line. */
async function openRival(python, args) {
  const script = fileURLToPath(new URL("transformers_prefill.py", import.meta.url));
  const child = spawn(python, [script, ...args.map(String)], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error("transformers_prefill.py has ended");
    return JSON.parse(value);
  };
  const { transformers, torch } = await next();
  return {
    versions: `transformers ${transformers}, torch ${torch}`,
    ask: async (request) => {
      child.stdin.write(`${JSON.stringify(request)}\n`);
      return await next();
    },
    close: () => child.stdin.end(),
  };
}

/** One line for each length. */
function exportedPrefills(model, python, lengths, threads) {
  const path = fileURLToPath(new URL("transformers_onnx.py", import.meta.url));
  const args = [path, model.path, "--lengths", lengths.join(","), "--threads", String(threads), "--repeats", "3"];
  const { stdout, stderr, status } = spawnSync(python, args, { encoding: "utf8", maxBuffer: 1 << 26 });
  if (status !== 0) throw new Error(`transformers_onnx.py failed\n${stderr}`);
  return stdout
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line))
    .filter(({ length }) => length !== undefined);
}
