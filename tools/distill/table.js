// Distils the demo model for several patterns, rates and seeds and prints loss above all-F on held-out text, a JSON line each.
//   node tools/distill/table.js --text train.jsonl --plan plan.json --out results.jsonl [--device cuda:0]
// Run `npm run build` first. A plan is a list of {name, pattern, steps, rate, seed, weight, targets, from?, evaluate?}.

import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { loadCalibrationSet } from "../../dist/calibration/calibration-set.js";
import { Tokenizer } from "../../dist/checkpoint/tokenizer.js";
import { distil } from "../../dist/distill/distillation.js";
import { writeDistilledCheckpoint } from "../../dist/distill/distilled-checkpoint.js";
import { defaultRecipe } from "../../dist/distill/recipe.js";
import { openModel } from "../../dist/graph/model-folder.js";
import { parsePattern } from "../../dist/pattern/pattern.js";
import { openLosses } from "../../dist/runtime/open-losses.js";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: "models/demo" },
    text: { type: "string" },
    heldOut: { type: "string", default: "calibration/held-out.jsonl" },
    plan: { type: "string" },
    out: { type: "string", default: "results.jsonl" },
    device: { type: "string", default: "cpu" },
    threads: { type: "string", default: "2" },
    keep: { type: "string" },
  },
});
const threads = Number(values.threads);
const { device } = values;
const length = 1024;

async function windowsOf(model, path, pack) {
  const tokenizer = await Tokenizer.load(model.path);
  const set = await loadCalibrationSet(path, model.config, async (text) => tokenizer.encode(text), {
    sequenceLength: length,
    pack,
  });
  return set.windows;
}

async function lossOf(model, windows, patterns) {
  const losses = await openLosses(model, windows, { device, threads, dtype: "float32", stateBytes: 0 });
  const found = {};
  for (const pattern of patterns) {
    const { sequences } = await losses.evaluate(parsePattern(pattern), {});
    found[pattern] = sequences.reduce((sum, { loss }) => sum + loss, 0) / sequences.length;
  }
  await losses.release();
  return found;
}

const say = (row) => {
  const line = JSON.stringify(row);
  console.log(line);
  appendFileSync(values.out, `${line}\n`);
};

const base = await openModel(values.model);
const training = await windowsOf(base, values.text, true);
const heldOut = (await windowsOf(base, values.heldOut, false)).slice(0, 32);
const full = "F".repeat(base.config.numHiddenLayers);
const plan = JSON.parse(readFileSync(values.plan, "utf8"));
const patterns = [...new Set(plan.flatMap(({ pattern, evaluate }) => [...(evaluate ?? [pattern])]))].filter(
  (p) => p !== "any",
);
const before = await lossOf(base, heldOut, [full, ...patterns]);
const above = (losses, all) =>
  Object.fromEntries(Object.entries(losses).map(([p, loss]) => [p, +(loss - all).toFixed(5)]));
say({ sequences: training.length, heldOut: heldOut.length, full: before[full], before: above(before, before[full]) });
const folders = new Map();
for (const { name, pattern, evaluate, from, ...changes } of plan) {
  const model = from === undefined ? base : await openModel(folders.get(from));
  const recipe = { ...defaultRecipe, seed: 1, ...changes };
  const settings = {
    pattern: pattern === "any" ? "any" : parsePattern(pattern),
    recipe,
    weight: changes.weight ?? "values",
    device,
    threads,
    measurements: changes.measurements ?? 0,
  };
  const began = performance.now();
  const trained = new Map();
  const kl = [];
  let steps = 0;
  for await (const event of distil(model, { training, heldOut }, settings)) {
    if (event.type === "step") {
      steps++;
      if (event.done.step % Math.ceil(recipe.steps / 4) === 0)
        kl.push([...event.done.losses].map(([l, v]) => `${l}:${v.toFixed(3)}`).join(" "));
    }
    if (event.type === "measured")
      kl.push(
        `missed@${event.measured.step} ${[...event.measured.missed].map(([l, v]) => `${l}:${v.toFixed(4)}`).join(" ")}`,
      );
    if (event.type === "trained") for (const [layer, tensors] of event.parameters) trained.set(layer, tensors);
  }
  const seconds = (performance.now() - began) / 1000;
  const folder = mkdtempSync(join(values.keep ?? tmpdir(), `${name}-`));
  rmSync(folder, { recursive: true });
  const config = readFileSync(join(values.model, "config.json"), "utf8");
  await writeDistilledCheckpoint(folder, model, trained, async () => [{ name: "config.json", content: config }]);
  folders.set(name, folder);
  const after = await lossOf(await openModel(folder), heldOut, [full, ...(evaluate ?? [pattern])]);
  say({
    name,
    pattern,
    ...changes,
    from,
    seconds: +seconds.toFixed(1),
    msPerStep: +((1000 * seconds) / steps).toFixed(1),
    after: above(after, before[full]),
    kl,
  });
}
