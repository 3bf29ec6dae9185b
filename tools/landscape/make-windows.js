// Writes the windows that `indexcache loss` and `search` measure on, as token ids, with the hash that they print.
//   node tools/landscape/make-windows.js models/demo windows.json calibration=calibration/demo.jsonl held-out=calibration/held-out.jsonl
// Run `npm run build` first.
import { writeFileSync } from "node:fs";
import { loadCalibrationSet } from "../../dist/calibration/calibration-set.js";
import { Tokenizer } from "../../dist/checkpoint/tokenizer/tokenizer.js";
import { openModel } from "../../dist/graph/model-folder.js";

const [folder, out, ...sources] = process.argv.slice(2);
const { config } = await openModel(folder);
const tokenizer = await Tokenizer.load(folder);
const sets = [];
for (const source of sources) {
  const [name, path] = source.split("=");
  const { hash, windows } = await loadCalibrationSet(path, config, async (text) => tokenizer.encode(text));
  sets.push({ name, hash, windows: windows.map((ids) => [...ids]) });
}
writeFileSync(out, JSON.stringify({ sets }));
for (const { name, hash, windows } of sets) console.log(name, windows.length, "x", windows[0].length, hash);
