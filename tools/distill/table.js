// Distils the demo model for several patterns, rates and seeds and prints loss above all-F on held-out text, a JSON line each.
//   node tools/distill/table.js --text train.jsonl --plan plan.json --keep FOLDER --out results.jsonl [--device cuda:0 --states computed]
// Run `npm run build` first. A plan is a list of {name, pattern, steps, rate, batch, stride, seed, weight, targets, from?,
// evaluate?, text?}; `from` names an earlier row, whose model is trained on. `text` lists sources with weights
// (FILE=WEIGHT) in the place of --text, as `distill -c` takes them. A row without a pattern trains nothing: `evaluate` is
// measured on its model, a list of patterns or how many Full layers all of them have. Rows whose names are in the results are
// not run again, their models are taken from --keep. Hidden states are made once for each model; two processes with one
// --keep would make them twice, so that one makes them first.

import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadCalibrationSet } from "../../dist/calibration/calibration-set.js";
import { Tokenizer } from "../../dist/checkpoint/tokenizer/tokenizer.js";
import { Terminal } from "../../dist/cli/console/terminal.js";
import { openTrainingText } from "../../dist/cli/distill/distill-text.js";
import { distil } from "../../dist/distill/distillation.js";
import { writeDistilledCheckpoint } from "../../dist/distill/distilled-checkpoint.js";
import { defaultRecipe } from "../../dist/distill/recipe.js";
import { openModel } from "../../dist/graph/model-folder.js";
import { parsePattern } from "../../dist/pattern/pattern.js";
import { openLosses } from "../../dist/runtime/loss/open-losses.js";
import { StatesInFile } from "../../dist/runtime/training/boundary-states.js";
import { readArguments } from "../arguments.js";

const { values } = readArguments({
  model: { type: "string", default: "models/demo" },
  text: { type: "string" },
  sequences: { type: "string", default: "512" },
  heldOut: { type: "string", default: "calibration/held-out.jsonl" },
  plan: { type: "string", required: true },
  out: { type: "string", default: "results.jsonl" },
  keep: { type: "string", required: true },
  device: { type: "string", default: "cpu" },
  states: { type: "string", default: "stored" },
  threads: { type: "string", default: "2" },
});
const threads = Number(values.threads);
const { device, keep } = values;
const length = 1024;

async function windowsOf(model, path, pack) {
  const tokenizer = await Tokenizer.load(model.path);
  const set = await loadCalibrationSet(path, model.config, async (text) => tokenizer.encode(text), {
    sequenceLength: length,
    pack,
  });
  return set.windows;
}

async function lossesOf(model, windows, patterns) {
  const losses = await openLosses(model, windows, { device, threads, dtype: "float32", stateBytes: 0 });
  const found = {};
  for (const pattern of patterns) {
    const { sequences } = await losses.evaluate(parsePattern(pattern), {});
    found[pattern] = sequences.map(({ loss }) => loss);
  }
  await losses.release();
  return found;
}

/** Boundaries of one model in files that outlive a row. */
function boundaryFiles(folder) {
  mkdirSync(folder, { recursive: true });
  const path = (layer) => join(folder, `boundary-${layer}.bf16`);
  return {
    boundary: async (layer, shape) => {
      if (!existsSync(`${path(layer)}.sha256`)) return undefined;
      return StatesInFile.reopen(path(layer), shape, readFileSync(`${path(layer)}.sha256`, "utf8"));
    },
    newBoundary: (layer, shape) => StatesInFile.create(path(layer), shape),
    boundaryComplete: async (layer, states) => appendFileSync(`${path(layer)}.sha256`, await states.hash()),
    dropBoundary: async () => {},
    trained: async () => undefined,
    saveTrained: async () => {},
    checkpoint: async () => undefined,
    saveCheckpoint: async () => {},
    saveMeasured: async () => {},
  };
}

/** Every pattern of so many Full layers, the first one Full. */
function patternsOfSize(layers, full) {
  const found = [];
  const extend = (letters, left) => {
    if (letters.length === layers) {
      if (left === 0) found.push(letters);
      return;
    }
    if (left > 0) extend(`${letters}F`, left - 1);
    if (letters.length > 0) extend(`${letters}S`, left);
  };
  extend("", full);
  return found;
}

const median = (numbers) => numbers.toSorted((left, right) => left - right)[Math.floor(numbers.length / 2)];
const mean = (numbers) => numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
/** Mean difference of two patterns' losses over the same sequences, with its standard error. */
function paired(losses, all) {
  const differences = losses.map((loss, index) => loss - all[index]);
  const centre = mean(differences);
  const variance = differences.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (differences.length - 1);
  return [+centre.toFixed(5), +Math.sqrt(variance / differences.length).toFixed(5)];
}
const earlier = existsSync(values.out)
  ? readFileSync(values.out, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
  : [];
const say = (row) => {
  const line = JSON.stringify(row);
  console.log(line);
  appendFileSync(values.out, `${line}\n`);
};

const base = await openModel(values.model);
let text = { sources: undefined, windows: [] };
/** Windows of a row's sources; those of the last row are kept. */
async function trainingOf(sources = [values.text]) {
  const name = sources.join("+");
  if (text.name === name) return text.windows;
  const sequences = Number(values.sequences);
  const flags = { calibration: sources, seed: 0, pack: true, sequenceLength: length, sequences };
  // Nothing is held out: the table has its own text for that.
  const recipe = { ...defaultRecipe, steps: Number.MAX_SAFE_INTEGER / 1e6, seed: 0 };
  const { windows } = await openTrainingText(
    base,
    flags,
    recipe,
    undefined,
    new Terminal({ quiet: true }),
    AbortSignal.timeout(1e9),
  );
  text = { name, windows };
  return windows;
}
const heldOut = (await windowsOf(base, values.heldOut, false)).slice(0, 32);
const full = "F".repeat(base.config.numHiddenLayers);
const plan = JSON.parse(readFileSync(values.plan, "utf8"));
// Losses of all-F, sequence by sequence, are measured once for all rows.
const fullPath = join(keep, "full.json");
if (!existsSync(fullPath)) {
  mkdirSync(keep, { recursive: true });
  writeFileSync(fullPath, JSON.stringify((await lossesOf(base, heldOut, [full]))[full]));
}
const allFull = JSON.parse(readFileSync(fullPath, "utf8"));
const above = (losses) =>
  Object.fromEntries(Object.entries(losses).map(([pattern, found]) => [pattern, paired(found, allFull)]));
if (earlier.length === 0) say({ heldOut: heldOut.length, full: mean(allFull) });
for (const [place, { name, pattern, evaluate, from, text: sources, ...changes }] of plan.entries()) {
  if (earlier.some((row) => row.name === name)) continue;
  const model = from === undefined ? base : await openModel(join(keep, from));
  const wanted = (evaluate ?? [pattern]).flatMap((one) =>
    typeof one === "number" ? patternsOfSize(base.config.numHiddenLayers, one) : [one],
  );
  if (pattern === undefined) {
    say({ name, from, after: above(await lossesOf(model, heldOut, wanted)) });
    continue;
  }
  const recipe = { ...defaultRecipe, seed: 1, ...changes };
  const training = await trainingOf(sources);
  const states = (one) => [one.from ?? "base", ...(one.text ?? [])].join("+").replace(/[^a-z0-9.=+-]/gi, "_");
  const stateFolder = join(keep, `${states({ from, text: sources })}.states`);
  const store = boundaryFiles(stateFolder);
  const settings = {
    pattern: pattern === "any" ? "any" : parsePattern(pattern),
    recipe,
    weight: changes.weight ?? "values",
    device,
    threads,
    stepStates: values.states,
    measurements: changes.measurements ?? 0,
    store,
    checkpointEvery: Number.POSITIVE_INFINITY,
  };
  const began = performance.now();
  const trained = new Map();
  const kl = [];
  const [spent, taken] = [[], []];
  let [used, clock] = [process.cpuUsage(), performance.now()];
  for await (const event of distil(model, { training, heldOut }, settings)) {
    if (event.type === "step") {
      const { user, system } = process.cpuUsage(used);
      spent.push((user + system) / 1e6);
      taken.push((performance.now() - clock) / 1e3);
      [used, clock] = [process.cpuUsage(), performance.now()];
      const { step, losses } = event.done;
      if (step % Math.ceil(recipe.steps / 4) === 0 || step === recipe.steps - 1)
        kl.push(`${step} ${[...losses].map(([layer, loss]) => `${layer}:${loss.toFixed(3)}`).join(" ")}`);
    }
    if (event.type === "measured") {
      const { step, missed } = event.measured;
      kl.push(`missed@${step} ${[...missed].map(([layer, share]) => `${layer}:${share.toFixed(4)}`).join(" ")}`);
    }
    if (event.type === "trained") for (const [layer, tensors] of event.parameters) trained.set(layer, tensors);
  }
  const seconds = (performance.now() - began) / 1000;
  // Boundaries that no later row begins a group at are of no use any more.
  const later = plan.slice(place + 1).filter((one) => states(one) === states({ from, text: sources }));
  const needed = (layer) =>
    later.some((one) => layer === 0 || values.states === "stored" || one.pattern?.[layer] === "F");
  for (let layer = 0; layer < base.config.numHiddenLayers; layer++) {
    if (needed(layer)) continue;
    for (const end of ["bf16", "bf16.sha256"]) rmSync(join(stateFolder, `boundary-${layer}.${end}`), { force: true });
  }
  const folder = join(keep, name);
  rmSync(folder, { recursive: true, force: true });
  const files = ["config.json", "tokenizer.json", "tokenizer_config.json"].flatMap((file) => {
    const path = join(values.model, file);
    return existsSync(path) ? [{ name: file, content: readFileSync(path, "utf8") }] : [];
  });
  await writeDistilledCheckpoint(folder, model, trained, async () => files);
  const after = await lossesOf(await openModel(folder), heldOut, wanted);
  say({
    name,
    pattern,
    ...changes,
    from,
    text: sources,
    sequences: training.length,
    seconds: Math.round(seconds),
    cpuSecondsPerStep: +median(spent).toFixed(3),
    wallSecondsPerStep: +median(taken).toFixed(4),
    after: above(after),
    kl,
  });
}
