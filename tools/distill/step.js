// CPU seconds of one training step of a group, beside pytorch_step.py of the same shapes. Run `npm run build` first.
//   node tools/distill/step.js --layers 4 --batch 4 --threads 2 --steps 6 [--device cuda:0 --states computed] [--profile /tmp/step]

import { parseArgs } from "node:util";
import { distil } from "../../dist/distill/distillation.js";
import { defaultRecipe } from "../../dist/distill/recipe.js";
import { openModel } from "../../dist/graph/model-folder.js";
import { parsePattern } from "../../dist/pattern/pattern.js";

const { values } = parseArgs({
  options: {
    layers: { type: "string", default: "4" },
    batch: { type: "string", default: "4" },
    threads: { type: "string", default: "2" },
    steps: { type: "string", default: "6" },
    stride: { type: "string", default: "4" },
    device: { type: "string", default: "cpu" },
    states: { type: "string", default: "stored" },
    profile: { type: "string" },
  },
});
const [layers, batch, threads, steps, stride] = ["layers", "batch", "threads", "steps", "stride"].map((name) =>
  Number(values[name]),
);
const model = await openModel("models/demo");
const total = model.config.numHiddenLayers;
const pattern = parsePattern(`F${"S".repeat(layers - 1)}${"F".repeat(total - layers)}`);
let state = 1;
const id = () => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return (state >>> 8) % model.config.vocabSize;
};
const training = Array.from({ length: batch }, () => Int32Array.from({ length: 1024 }, id));
// Dense steps only, as in the PyTorch script.
const recipe = { ...defaultRecipe, seed: 1, batch, stride, steps: steps + 1, dense: 1 };
const settings = {
  pattern,
  recipe,
  weight: "values",
  device: values.device,
  threads,
  stepStates: values.states,
  measurements: 0,
};
if (values.profile !== undefined) settings.profilePrefix = values.profile;
const cpu = [];
const wall = [];
let [used, clock] = [process.cpuUsage(), performance.now()];
for await (const event of distil(model, { training, heldOut: [] }, settings)) {
  if (event.type === "step") {
    const { user, system } = process.cpuUsage(used);
    if (event.done.step > 0) {
      cpu.push((user + system) / 1e6);
      wall.push((performance.now() - clock) / 1e3);
    }
    [used, clock] = [process.cpuUsage(), performance.now()];
    if (event.done.step === steps) break;
  }
}
cpu.sort((left, right) => left - right);
const { maxRSS } = process.resourceUsage();
console.log(
  JSON.stringify({
    cpu_s: cpu[Math.floor(cpu.length / 2)],
    wall_s: Math.min(...wall),
    peak_mb: Math.round(maxRSS / 1024),
  }),
);
