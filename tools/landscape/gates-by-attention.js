/**
 * Another rival to greedy: gates learned through the graphs that `distill` trains by, without a single loss of the model. A layer
 * that reads the selection of layer s misses c[l][s] of its attention mass: what `distill` reports, and `analyze` measures for all
 * pairs in one pass. With a gate g for each layer, layer l reads from s with probability g_s (1 - g_t) for all t from s + 1 to l;
 * the expected mass that is missed, with a penalty on gates beyond the budget, is descended by Adam, and the highest gates stay.
 *
 *   npm run build && node bin/indexcache.js analyze --sequences 8 -o analysis.json
 *   node tools/landscape/gates-by-attention.js analysis.json [demo]
 *
 * Markdown: loss above every indexer on the calibration set, of the learned pattern, the exact optimum of what the gates
 * minimise, greedy, the default, and the best pattern of each size.
 */
import { readFileSync } from "node:fs";
import { Random } from "../../dist/base/random.js";
import { fullLayers, fullPattern, parsePattern } from "../../dist/pattern/pattern.js";
import { greedy } from "../../dist/search/strategies/greedy.js";
import { refine } from "../../dist/search/strategies/refine.js";
import { all, mean, milli, optimum, patternAt, readLandscape, row, run } from "./landscapes.js";

const SEEDS = 20;
const STEPS = 2000;
const RATE = 0.05;

const [file, name = "demo"] = process.argv.slice(2);
const analysis = JSON.parse(readFileSync(file, "utf8"));
const landscape = readLandscape(name);
const { layers, sets } = landscape;
const { recall, sources } = analysis;
if (sources.length !== layers) throw new Error(`${file} has ${sources.length} indexers, ${name} has ${layers}`);
const missed = recall.mean.map((values) => values.map((value) => (value === null ? null : 1 - value)));

/** Mass that is missed if gates are independent chances to be Full. */
function expected(gates) {
  let total = 0;
  for (const layer of all(layers)) {
    let passed = 1;
    for (let source = layer; source >= 0; source--) {
      const gate = source === 0 ? 1 : gates[source - 1];
      total += passed * gate * missed[layer][source];
      passed *= 1 - gate;
    }
  }
  return total;
}

function learn(size, seed) {
  const random = Random.forPart(seed, "gates by attention");
  const weights = all(layers - 1).map(() => 2 * random.unit() - 1);
  const moments = weights.map(() => ({ first: 0, second: 0 }));
  for (let step = 1; step <= STEPS; step++) {
    const gates = weights.map((weight) => 1 / (1 + Math.exp(-weight)));
    const over = gates.reduce((sum, gate) => sum + gate, 0) - (size - 1);
    // The budget grows firm while gates settle.
    const penalty = (2 * step) / STEPS;
    for (const [place, gate] of gates.entries()) {
      // The objective is linear in each gate: the slope is exact.
      const slope = expected(gates.with(place, 1)) - expected(gates.with(place, 0));
      const gradient = (slope + 2 * penalty * over) * gate * (1 - gate);
      const moment = moments[place];
      moment.first = 0.9 * moment.first + 0.1 * gradient;
      moment.second = 0.99 * moment.second + 0.01 * gradient ** 2;
      const first = moment.first / (1 - 0.9 ** step);
      const second = moment.second / (1 - 0.99 ** step);
      weights[place] -= (RATE * first) / (Math.sqrt(second) + 1e-8);
    }
  }
  const kept = new Set(
    all(layers - 1)
      .toSorted((left, right) => weights[right] - weights[left])
      .slice(0, size - 1),
  );
  return parsePattern(
    `F${all(layers - 1)
      .map((place) => (kept.has(place) ? "F" : "S"))
      .join("")}`,
  );
}

/** The pattern of this size that misses least mass, of all of them. */
function least(size) {
  const patterns = all(landscape.patterns)
    .map((index) => patternAt(index, layers))
    .filter((pattern) => fullLayers(pattern).length === size);
  const cost = (pattern) => expected([...pattern].slice(1).map((letter) => (letter === "F" ? 1 : 0)));
  return patterns.reduce((best, one) => (cost(one) < cost(best) ? one : best));
}

const base = mean(sets.calibration, fullPattern(layers));
const change = (pattern) => milli(mean(sets.calibration, pattern) - base);
const middle = (values) => values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)];
row(["Full", "gates: median, best and worst of 20", "what they minimise, exactly", "greedy", "default", "best"]);
row(all(6).map(() => "---"));
for (const size of new Set([2, 3, 4, 6].map((part) => Math.max(2, Math.round(layers / part))))) {
  const learned = all(SEEDS).map((seed) => learn(size, seed));
  const losses = learned.map((pattern) => mean(sets.calibration, pattern) - base);
  const exact = least(size);
  const plain = await run(landscape, { strategy: greedy }, [size]);
  const found = await run(landscape, { strategy: refine }, [size]);
  row([
    String(size),
    `${milli(middle(losses))}, ${milli(Math.min(...losses))}, ${milli(Math.max(...losses))} (${new Set(learned).size} patterns)`,
    `${change(exact)} \`${exact}\``,
    change(plain.patterns[0].pattern),
    change(found.patterns[0].pattern),
    change(optimum(landscape, size).pattern),
  ]);
}
