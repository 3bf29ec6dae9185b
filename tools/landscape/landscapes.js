/** The landscapes of the fixtures, searches over them, and rows of Markdown: what compare.js and gates.js share. */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { fullLayers, fullPattern, parsePattern } from "../../dist/pattern/pattern.js";
import { oneByOne } from "../../dist/search/events.js";
import { search } from "../../dist/search/search.js";
import { PatternSpace } from "../../dist/search/space.js";

const folder = fileURLToPath(new URL("../../test/fixtures/landscapes", import.meta.url));

/** See landscape.py for the format. */
export function readLandscape(name) {
  const bytes = readFileSync(join(folder, `${name}.landscape`));
  const end = bytes.indexOf(10);
  const header = JSON.parse(bytes.subarray(0, end).toString());
  const patterns = 2 ** (header.layers - 1);
  let offset = end + 1;
  const sets = {};
  for (const { name: set, sequences } of header.sets) {
    sets[set] = { sequences };
    for (const quantity of ["nll", "kl"]) {
      sets[set][quantity] = Float32Array.from({ length: patterns * sequences }, (_, index) =>
        bytes.readFloatLE(offset + 4 * index),
      );
      offset += 4 * patterns * sequences;
    }
  }
  return { name, layers: header.layers, patterns, sets };
}

export function indexOf(pattern) {
  return [...pattern].slice(1).reduce((bits, letter, at) => bits | (letter === "F" ? 1 << at : 0), 0);
}

export function patternAt(index, layers) {
  return parsePattern(`F${Array.from({ length: layers - 1 }, (_, at) => ((index >> at) & 1 ? "F" : "S")).join("")}`);
}

export const all = (count) => Array.from({ length: count }, (_, index) => index);

export function mean(set, pattern, sequences = all(set.sequences), quantity = "nll") {
  const start = indexOf(pattern) * set.sequences;
  return sequences.reduce((sum, index) => sum + set[quantity][start + index], 0) / sequences.length;
}

export async function run(
  landscape,
  method,
  targets,
  { set = landscape.sets.calibration, sequences, quantity = "nll", stability = false } = {},
) {
  const evaluate = oneByOne(async (pattern, asked) =>
    asked.map((index) => ({ loss: set[quantity][indexOf(pattern) * set.sequences + index], tokens: 1023 })),
  );
  const start = fullPattern(landscape.layers);
  const kept = method.strategy.pinned?.(start, method.settings) ?? [];
  const space = new PatternSpace(start, { pinned: new Map(kept.map((layer) => [layer, method.strategy.name])) });
  for await (const event of search(method, {
    space,
    targets,
    sequences: sequences ?? all(set.sequences),
    evaluate,
    stability,
  })) {
    if (event.kind === "done") return event.result;
  }
}

export function optimum(landscape, size) {
  let best;
  for (let index = 0; index < landscape.patterns; index++) {
    const pattern = patternAt(index, landscape.layers);
    if (fullLayers(pattern).length !== size) continue;
    const loss = mean(landscape.sets.calibration, pattern);
    if (best === undefined || loss < best.loss) best = { pattern, loss };
  }
  return best;
}

export function landscapeFiles() {
  return readdirSync(folder)
    .filter((file) => file.endsWith(".landscape"))
    .map((file) => basename(file, ".landscape"));
}

export const milli = (nats) => (1000 * nats).toFixed(1);
export const row = (cells) => console.log(`| ${cells.join(" | ")} |`);
