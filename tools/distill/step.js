// Seconds of one training step of a group, beside pytorch_step.py of the same shapes. Run `npm run build` first.
//   node tools/distill/step.js --layers 4 --batch 4 --threads 2 --steps 6 [--device cuda --states computed --sparse] [--profile /tmp/step]
// Memory of the device is what nvidia-smi says of this process after the last step.

import { execFileSync } from "node:child_process";
import { distil } from "../../dist/distill/distillation.js";
import { defaultRecipe } from "../../dist/distill/recipe.js";
import { openModel } from "../../dist/graph/model-folder.js";
import { parsePattern } from "../../dist/pattern/pattern.js";
import { readArguments } from "../arguments.js";

const { values } = readArguments({
  layers: { type: "string", default: "4" },
  batch: { type: "string", default: "4" },
  threads: { type: "string", default: "2" },
  steps: { type: "string", default: "6" },
  stride: { type: "string", default: "4" },
  device: { type: "string", default: "cpu" },
  states: { type: "string", default: "stored" },
  sparse: { type: "boolean", default: false },
  profile: { type: "string" },
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
// Steps of one kind, as in the PyTorch script.
const recipe = { ...defaultRecipe, seed: 1, batch, stride, steps: steps + 1, dense: values.sparse ? 0 : 1 };
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
/** What this process takes of the device. */
function megabytesOnDevice() {
  const asked = ["--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"];
  const lines = execFileSync("nvidia-smi", asked, { encoding: "utf8" }).trim().split("\n");
  const own = lines
    .map((line) => line.split(", "))
    .filter(([pid]) => Number(pid) === process.pid || lines.length === 1);
  return own.length === 0 ? undefined : Number(own[0][1]);
}

let deviceMegabytes;
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
    if (event.done.step < steps) continue;
    if (values.device !== "cpu") deviceMegabytes = megabytesOnDevice();
    break;
  }
}
const middle = (all) => all.toSorted((left, right) => left - right)[Math.floor(all.length / 2)];
const { maxRSS } = process.resourceUsage();
console.log(
  JSON.stringify({
    ...{ layers, batch, threads, steps, stride, device: values.device, states: values.states, sparse: values.sparse },
    cpu_s: +middle(cpu).toFixed(5),
    wall_s: +Math.min(...wall).toFixed(5),
    median_wall_s: +middle(wall).toFixed(5),
    peak_mb: Math.round(maxRSS / 1024),
    device_mb: deviceMegabytes,
  }),
);
