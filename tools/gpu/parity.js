/**
 * Losses and searched patterns of every provider against the CPU's, on the demo model: prints one JSON document and exits
 * with 1 where a tolerance of docs/gpu.md is broken.
 *
 *   node tools/gpu/parity.js --providers webgpu,cuda --sequences 16
 */

import { fileURLToPath } from "node:url";
import { loadCalibrationSet } from "../../dist/calibration/calibration-set.js";
import { Tokenizer } from "../../dist/checkpoint/tokenizer/tokenizer.js";
import { openModel } from "../../dist/graph/model-folder.js";
import { openLossEvaluator } from "../../dist/runtime/loss/loss-evaluator.js";
import { oneByOne } from "../../dist/search/events.js";
import { search as searchPatterns } from "../../dist/search/search.js";
import { PatternSpace } from "../../dist/search/space.js";
import { greedy } from "../../dist/search/strategies/greedy.js";
import { readArguments } from "../arguments.js";

const { values } = readArguments({
  providers: { type: "string", default: "webgpu,cuda" },
  sequences: { type: "string", default: "16" },
  model: { type: "string", default: fileURLToPath(new URL("../../models/demo", import.meta.url)) },
  calibration: { type: "string", default: fileURLToPath(new URL("../../calibration/demo.jsonl", import.meta.url)) },
});

/**
 * Of a mean loss over the set, in nats; docs/gpu.md says why these. The same share of what a pattern loses comes on top: the more
 * it is broken, the more tokens hang on one selection.
 */
const tolerance = { float32: 1e-4, float16: 1e-2 };

const model = await openModel(values.model);
const tokenizer = await Tokenizer.load(model.path);
const { windows } = await loadCalibrationSet(values.calibration, model.config, async (text) => tokenizer.encode(text), {
  textColumn: "text",
  seed: 0,
  pack: true,
  sequences: Number(values.sequences),
});
const layers = model.config.numHiddenLayers;
const retain = Math.ceil(layers / 4);

/** The greedy search, with the loss of every candidate. */
async function search(device, dtype) {
  const started = performance.now();
  const evaluator = await openLossEvaluator(model, windows, { device, dtype });
  const opened = performance.now();
  const losses = new Map();
  let pattern;
  try {
    const options = {
      space: new PatternSpace(model.config.indexerLayers),
      targets: [retain],
      sequences: [...windows.keys()],
      evaluate: oneByOne(async (candidate, sequences, { base, keep, signal }) => {
        const measured = await evaluator.evaluate(candidate, { base, keep, signal, sequences });
        losses.set(candidate, measured);
        return measured.sequences;
      }),
    };
    for await (const event of searchPatterns({ strategy: greedy }, options)) {
      if (event.kind === "done") [pattern] = event.result.patterns;
    }
  } finally {
    await evaluator.release();
  }
  const seconds = (performance.now() - opened) / 1000;
  return { path: pattern, losses, seconds, load: (opened - started) / 1000 };
}

const reference = await search("cpu", "float32");
const results = [{ device: "cpu", dtype: "float32", seconds: reference.seconds, evaluations: reference.losses.size }];
let failed = false;
for (const device of values.providers.split(",")) {
  for (const dtype of ["float32", "float16"]) {
    try {
      const found = await search(device, dtype);
      const shared = [...found.losses].filter(([pattern]) => reference.losses.has(pattern));
      const full = reference.losses.get(model.config.indexerLayers).loss;
      const differences = shared
        .map(([pattern, { loss }]) => {
          const expected = reference.losses.get(pattern).loss;
          const allowed = tolerance[dtype] * (1 + Math.max(0, expected - full));
          return { pattern, loss: expected, difference: loss - expected, allowed };
        })
        .sort((a, b) => Math.abs(b.difference) - Math.abs(a.difference));
      const ofSequences = shared.flatMap(([pattern, { sequences }]) =>
        sequences.map(({ loss }, index) => Math.abs(loss - reference.losses.get(pattern).sequences[index].loss)),
      );
      const samePath = JSON.stringify(steps(found.path)) === JSON.stringify(steps(reference.path));
      failed ||= !differences.every(({ difference, allowed }) => Math.abs(difference) <= allowed) || !samePath;
      results.push({
        device,
        dtype,
        load_seconds: found.load,
        seconds: found.seconds,
        evaluations: found.losses.size,
        shared_evaluations: shared.length,
        tolerance: tolerance[dtype],
        largest_difference: Math.abs(differences[0].difference),
        root_mean_square: Math.sqrt(
          differences.reduce((sum, one) => sum + one.difference ** 2, 0) / differences.length,
        ),
        largest_differences: differences.slice(0, 5),
        largest_difference_of_a_sequence: Math.max(...ofSequences),
        same_path_as_cpu: samePath,
      });
    } catch (error) {
      failed = true;
      results.push({ device, dtype, failed: error.message });
    }
  }
}
console.log(
  JSON.stringify(
    {
      model: model.config.name,
      sequences: windows.length,
      length: windows[0].length,
      path: steps(reference.path),
      results,
    },
    null,
    2,
  ),
);
process.exitCode = failed ? 1 : 0;

/** The committed pattern of every step. */
function steps({ steps: taken }) {
  return taken.map(({ pattern }) => pattern);
}
