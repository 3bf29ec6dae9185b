/**
 * A rival to greedy: a gate for each layer, learned by gradient under a budget of Full layers, as ConSA does for full and
 * sliding attention. Here the gradient is the score function's (REINFORCE): patterns of exactly so many Full layers are drawn
 * from the gates, each is measured on a few sequences, and gates of what did better than usual go up. What it learns from is
 * what a search measures, and it costs as much; a gradient through the model would need indexers that attend softly.
 *
 *   npm run build && node tools/landscape/gates.js
 *
 * Markdown: for each budget, in layer runs of the default on the same case, how often and by how much the learned pattern misses
 * the best one of its size.
 */
import { Random } from "../../dist/base/random.js";
import { fullLayers, fullPattern, parsePattern } from "../../dist/pattern/pattern.js";
import { greedy } from "../../dist/search/strategies/greedy.js";
import { refine } from "../../dist/search/strategies/refine.js";
import { all, landscapeFiles, mean, milli, optimum, readLandscape, row, run } from "./landscapes.js";

const RATES = [0.02, 0.05, 0.1, 0.3];
const BATCHES = [1, 2, 4];
const BUDGETS = [1, 4, 16];
const SEEDS = 5;

/** A set of `size` layers beside layer 0, without replacement by weight (Gumbel top-k), in the order in which it was drawn. */
function draw(gates, size, random) {
  const keys = gates.map((gate, place) => ({
    place,
    key: gate - Math.log(-Math.log(random.unit() || Number.MIN_VALUE)),
  }));
  return keys
    .sort((left, right) => right.key - left.key)
    .slice(0, size)
    .map(({ place }) => place);
}

/** Gradient of the logarithm of the chance to draw these layers in this order. */
function scoreOf(gates, drawn) {
  const left = new Set(gates.keys());
  const gradient = gates.map(() => 0);
  for (const place of drawn) {
    const most = Math.max(...[...left].map((one) => gates[one]));
    const total = [...left].reduce((sum, one) => sum + Math.exp(gates[one] - most), 0);
    for (const one of left) gradient[one] -= Math.exp(gates[one] - most) / total;
    gradient[place] += 1;
    left.delete(place);
  }
  return gradient;
}

function patternOf(places, layers) {
  const full = new Set(places);
  return parsePattern(
    `F${all(layers - 1)
      .map((place) => (full.has(place) ? "F" : "S"))
      .join("")}`,
  );
}

/** The pattern of the highest gates after so many layer runs; every drawn pattern runs from its first Shared layer up. */
function learn({ layers, sets: { calibration } }, size, budget, { rate, batch, seed }) {
  const random = Random.forPart(seed, "gates");
  const gates = all(layers - 1).map(() => 0);
  const moments = gates.map(() => ({ first: 0, second: 0 }));
  const base = fullPattern(layers);
  let spent = layers * calibration.sequences;
  let usual;
  let spread = 0;
  for (let step = 1; ; step++) {
    const drawn = draw(gates, size - 1, random);
    const pattern = patternOf(drawn, layers);
    spent += batch * (layers - pattern.indexOf("S"));
    if (spent > budget) break;
    const sequences = random.sample(all(calibration.sequences), batch);
    // Against every indexer on the same sequences: those differ by nats.
    const loss = mean(calibration, pattern, sequences) - mean(calibration, base, sequences);
    usual ??= loss;
    const advantage = usual - loss;
    spread = spread === 0 ? Math.abs(advantage) : 0.9 * spread + 0.1 * Math.abs(advantage);
    usual = 0.9 * usual + 0.1 * loss;
    if (spread === 0) continue;
    for (const [place, slope] of scoreOf(gates, drawn).entries()) {
      const moment = moments[place];
      const gradient = (slope * advantage) / spread;
      moment.first = 0.9 * moment.first + 0.1 * gradient;
      moment.second = 0.99 * moment.second + 0.01 * gradient ** 2;
      const first = moment.first / (1 - 0.9 ** step);
      const second = moment.second / (1 - 0.99 ** step);
      gates[place] += (rate * first) / (Math.sqrt(second) + 1e-8);
    }
  }
  const best = all(layers - 1).toSorted((left, right) => gates[right] - gates[left]);
  return patternOf(best.slice(0, size - 1), layers);
}

const summary = (regrets) => [
  `${regrets.filter((regret) => regret > 1.5e-5).length} of ${regrets.length}`,
  milli(regrets.reduce((sum, regret) => sum + regret, 0) / regrets.length),
  milli(regrets.toSorted((left, right) => left - right)[Math.floor(0.95 * regrets.length)]),
  milli(Math.max(...regrets)),
];

row(["pattern by", "layer runs, of the default's", "not the best", "mean regret, 1e-3 nats", "95%", "worst"]);
row(all(6).map(() => "---"));
const cases = [];
for (const name of landscapeFiles()) {
  const landscape = readLandscape(name);
  for (const size of new Set([2, 4, 6].map((part) => Math.max(2, Math.round(landscape.layers / part))))) {
    const best = optimum(landscape, size).loss;
    const found = await run(landscape, { strategy: refine }, [size]);
    const plain = await run(landscape, { strategy: greedy }, [size]);
    cases.push({ landscape, size, best, found, plain });
  }
}
const regretOf = ({ landscape, best }, pattern) => Math.max(0, mean(landscape.sets.calibration, pattern) - best);
for (const [title, which] of [
  ["greedy", "plain"],
  ["default", "found"],
]) {
  const shares = cases.map((one) => one[which].layers / one.found.layers);
  const share = shares.reduce((sum, one) => sum + one, 0) / shares.length;
  row([title, share.toFixed(2), ...summary(cases.map((one) => regretOf(one, one[which].patterns[0].pattern)))]);
}
for (const budget of BUDGETS) {
  // The settings that did best in the mean over all cases: chosen in the rival's favour.
  const tried = RATES.flatMap((rate) => BATCHES.map((batch) => ({ rate, batch }))).map((settings) => {
    const regrets = cases.flatMap((one) =>
      all(SEEDS).map((seed) => {
        const learned = learn(one.landscape, one.size, budget * one.found.layers, { ...settings, seed });
        if (fullLayers(learned).length !== one.size) throw new Error(`${learned} is of another size`);
        return regretOf(one, learned);
      }),
    );
    return { settings, regrets, total: regrets.reduce((sum, regret) => sum + regret, 0) };
  });
  const { settings, regrets } = tried.reduce((best, one) => (one.total < best.total ? one : best));
  row([`gates, rate ${settings.rate}, ${settings.batch} sequences a step`, String(budget), ...summary(regrets)]);
}
