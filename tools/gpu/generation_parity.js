/**
 * The decoder on a GPU against the CPU's: logits of a prompt and of the CPU's greedy tokens behind it, on the demo model.
 * Prints one JSON document; exits with 1 where a tolerance of docs/gpu.md is broken. One dtype a process: a float32 one that
 * had a float16 session before computes in TF32.
 *
 *   node tools/gpu/generation_parity.js --device cuda --dtypes float32 --lengths 100,1000,3001 --new-tokens 48
 */
import { fileURLToPath } from "node:url";
import { loadCalibrationSet } from "../../dist/calibration/calibration-set.js";
import { Tokenizer } from "../../dist/checkpoint/tokenizer/tokenizer.js";
import { openModel } from "../../dist/graph/model-folder.js";
import { openDecoder } from "../../dist/runtime/generate/decoder.js";
import { mostLikely } from "../../dist/runtime/generate/sampling.js";
import { readArguments } from "../arguments.js";

const { values } = readArguments({
  device: { type: "string", default: "cuda" },
  dtypes: { type: "string", default: "float32" },
  lengths: { type: "string", default: "100,1000,3001" },
  "new-tokens": { type: "string", default: "48" },
  model: { type: "string", default: fileURLToPath(new URL("../../models/demo", import.meta.url)) },
  calibration: { type: "string", default: fileURLToPath(new URL("../../calibration/demo.jsonl", import.meta.url)) },
});
/**
 * Of the logits of all steps together, as a share of their root mean square. A key that float16 selects and float32 does
 * not moves the logits of a step much more than rounding does.
 */
const tolerance = { float32: 1e-4, float16: 1e-1 };
/** Share of the greedy choices that have to be the CPU's, those aside whose lead is less than the dtype can tell apart. */
const sameChoices = { float32: 1, float16: 0.9 };
const fractionBits = { float32: 23, float16: 10 };
const steps = Number(values["new-tokens"]);
const model = await openModel(values.model);
const tokenizer = await Tokenizer.load(model.path);
const set = await loadCalibrationSet(values.calibration, model.config, async (text) => tokenizer.encode(text), {
  textColumn: "text",
  seed: 0,
  pack: true,
  sequences: 8,
});
const ids = set.windows.flatMap((window) => [...window]);
const full = model.config.indexerLayers;
const quarter = [...full].map((_, layer) => (layer % 4 === 0 ? "F" : "S")).join("");

const results = [];
let failed = false;
for (const pattern of [full, quarter]) {
  for (const length of values.lengths.split(",").map(Number)) {
    const prompt = ids.slice(0, length);
    const reference = await openDecoder(model, pattern, { device: "cpu" });
    const expected = [Float32Array.from(await reference.prefill(prompt))];
    const tokens = [mostLikely(expected[0])];
    for (let step = 0; step < steps; step++) {
      expected.push(Float32Array.from(await reference.decode(tokens.at(-1))));
      tokens.push(mostLikely(expected.at(-1)));
    }
    await reference.release();
    for (const dtype of values.dtypes.split(",")) {
      const line = { pattern, length, steps, device: values.device, dtype, tolerance: tolerance[dtype] };
      try {
        const decoder = await openDecoder(model, pattern, {
          device: values.device,
          dtype,
          capacity: length + steps,
          ...(values.device === "cpu" ? { provider: "cpu" } : {}),
        });
        // The CPU's tokens are fed, so that one close choice does not make all later steps different ones.
        const found = [Float32Array.from(await decoder.prefill(prompt))];
        for (let step = 0; step < steps; step++) found.push(Float32Array.from(await decoder.decode(tokens[step])));
        // And once more with its own.
        decoder.rewind(length);
        const own = [mostLikely(found[0])];
        for (let step = 0; step < steps; step++) own.push(mostLikely(await decoder.decode(own.at(-1))));
        await decoder.release();
        const differences = found.map((logits, step) => largest(logits.map((logit, id) => logit - expected[step][id])));
        line.prefill_difference = differences[0];
        line.largest_difference = largest(differences);
        line.relative_difference = relative(found, expected);
        line.same_greedy_choices = found.filter((logits, step) => mostLikely(logits) === tokens[step]).length;
        line.same_greedy_text = JSON.stringify(own) === JSON.stringify(tokens);
        line.first_different = own.findIndex((id, step) => id !== tokens[step]);
        const others = found
          .map((logits, step) => [mostLikely(logits), tokens[step], expected[step]])
          .filter(([one, other]) => one !== other)
          .map(([one, other, logits]) => ({ logit: logits[other], lead: logits[other] - logits[one] }));
        line.lead_of_other_choices = others.map(({ lead }) => lead);
        line.ties = others.filter(({ logit, lead }) => lead < spacing(logit, fractionBits[dtype])).length;
        failed ||= !(line.relative_difference <= tolerance[dtype]);
        failed ||= line.same_greedy_choices < sameChoices[dtype] * (found.length - line.ties);
      } catch (error) {
        failed = true;
        line.failed = error.message;
      }
      results.push(line);
    }
  }
}
console.log(JSON.stringify({ model: model.config.name, results }, null, 2));
process.exitCode = failed ? 1 : 0;

/** How far apart numbers of this size lie. */
function spacing(number, bits) {
  return 2 ** (Math.floor(Math.log2(Math.abs(number))) - bits);
}

function relative(found, expected) {
  let [error, size] = [0, 0];
  for (const [step, logits] of expected.entries()) {
    for (const [id, logit] of logits.entries()) {
      error += (found[step][id] - logit) ** 2;
      size += logit ** 2;
    }
  }
  return Math.sqrt(error / size);
}

function largest(numbers) {
  return numbers.reduce((most, number) => Math.max(most, Number.isNaN(number) ? Infinity : Math.abs(number)), 0);
}
