/** Searches against the paper's greedy by full forward passes: layers, CPU time and seconds, on the same windows in one run. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { packWindows } from "../../dist/calibration/windows.js";
import { Tokenizer } from "../../dist/checkpoint/tokenizer/tokenizer.js";
import { fullPattern } from "../../dist/pattern/pattern.js";
import { openLossEvaluator } from "../../dist/runtime/loss/loss-evaluator.js";
import { oneByOne } from "../../dist/search/events.js";
import { parseRetain } from "../../dist/search/retain.js";
import { rehearse, search } from "../../dist/search/search.js";
import { PatternSpace } from "../../dist/search/space.js";
import { greedy } from "../../dist/search/strategies/greedy.js";
import { refine } from "../../dist/search/strategies/refine.js";
import { requireExecutions } from "../executions.js";

const RACE = { alpha: 0.1, block: 2, seed: 0 };

/** Windows of the shipped calibration set, as `indexcache search` would cut them. */
export async function calibrationWindows(model, length, count) {
  const tokenizer = await Tokenizer.load(model.path);
  const text = readFileSync(fileURLToPath(new URL("../../calibration/demo.jsonl", import.meta.url)), "utf8");
  async function* documents() {
    for (const line of text.split("\n")) if (line !== "") yield tokenizer.encode(JSON.parse(line).text);
  }
  const { windows } = await packWindows(documents(), length);
  return windows.slice(0, count);
}

export async function measureSearch(model, { sequences, length }) {
  const windows = await calibrationWindows(model, length, sequences);
  const naive = await run(model, windows, { strategy: greedy }, { reuse: false });
  const rows = [];
  for (const [title, method, objective] of [
    ["greedy", { strategy: greedy }, "nll"],
    ["greedy --race", { strategy: greedy, race: RACE }, "nll"],
    ["greedy --objective kl", { strategy: greedy, bounded: true }, "kl"],
    ["refine (default)", { strategy: refine }, "nll"],
  ]) {
    const ours = await run(model, windows, method, { objective });
    rows.push({ title, ...ours, identical: isIdentical(ours, naive) });
  }
  return { sequences: windows.length, length, naive, rows };
}

/** What a strategy's own bookkeeping takes at real depth, beside greedy's: no model, losses that cost nothing. */
export async function measureRehearsals(depths = [24, 47, 61, 78]) {
  const rows = [];
  for (const layers of depths) {
    const space = new PatternSpace(fullPattern(layers));
    const work = {
      space,
      targets: [Math.round(layers / 4)],
      sequences: Array.from({ length: 16 }, (_, index) => index),
    };
    const seconds = [];
    let foreseen;
    for (const strategy of [greedy, refine]) {
      const cpu = process.cpuUsage();
      foreseen = await rehearse({ strategy }, work);
      const { user, system } = process.cpuUsage(cpu);
      seconds.push((user + system) / 1e6);
    }
    rows.push({ layers, greedy: seconds[0], refine: seconds[1], patterns: foreseen.evaluations });
  }
  return rows;
}

/** One process and one thread: layers, rows and CPU time are then those of the search alone. */
async function run(model, windows, method, { objective = "nll", reuse = true }) {
  const evaluator = await openLossEvaluator(model, windows, { device: "cpu", threads: 1, workers: 1, objective });
  const total = { bodies: 0, naiveBodies: 0, rows: 0, naiveRows: 0, sequences: 0, losses: new Map() };
  const evaluate = oneByOne(async (pattern, asked, { base, keep, signal }) => {
    const options = reuse ? { base, keep, signal } : { afresh: true, signal };
    const { executions, sequences: losses } = await evaluator.evaluate(pattern, { ...options, sequences: asked });
    total.bodies += executions.body;
    total.naiveBodies += executions.naiveBody;
    total.rows += executions.rows.run;
    total.sequences += asked.length;
    total.naiveRows += Object.values(executions.rows).reduce((sum, rows) => sum + rows, 0);
    for (const [at, { loss }] of losses.entries()) total.losses.set(`${pattern}/${asked[at]}`, loss);
    return losses.map(({ loss, kl, tokens }) => ({ loss: objective === "kl" ? kl : loss, tokens }));
  });
  const cpu = process.cpuUsage();
  const started = performance.now();
  const space = new PatternSpace(model.config.indexerLayers);
  const targets = [parseRetain("1/4", model.config.numHiddenLayers)];
  let result;
  for await (const event of search(method, { space, targets, sequences: [...windows.keys()], evaluate })) {
    if (event.kind === "done") result = event.result;
  }
  await evaluator.release();
  const layers = model.config.numHiddenLayers;
  const naive = total.sequences * layers;
  // With reuse bodies are spared, and every spared row is accounted for; without it not one may be.
  requireExecutions(
    `search by ${method.strategy.name}`,
    { bodies: reuse ? naive : total.bodies, naiveBodies: total.naiveBodies, naiveRows: total.naiveRows },
    { bodies: naive, naiveBodies: naive, naiveRows: naive * windows[0].length },
  );
  const { user, system } = process.cpuUsage(cpu);
  const pattern = result.patterns[0].pattern;
  return { ...total, pattern, cpu: (user + system) / 1e6, seconds: (performance.now() - started) / 1000 };
}

/** The same pattern, and every loss that both measured the same to the last bit. */
function isIdentical(ours, naive) {
  return (
    ours.pattern === naive.pattern && [...ours.losses].every(([key, loss]) => (naive.losses.get(key) ?? loss) === loss)
  );
}
