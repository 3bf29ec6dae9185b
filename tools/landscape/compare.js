/**
 * Strategies on the landscapes, as Markdown: what each finds, what it runs for it, and what that is worth on other text.
 *
 *   npm run build && node tools/landscape/compare.js            every model: greedy, and what is composed of it
 *   npm run build && node tools/landscape/compare.js demo       one model: all strategies, random patterns, stability
 *   npm run build && node tools/landscape/compare.js effort     the presets of --effort
 *   npm run build && node tools/landscape/compare.js sequences  how many sequences a search needs (some minutes)
 *   npm run build && node tools/landscape/compare.js stability  what a search says of its own stability, and other text
 */
import { Random } from "../../dist/base/random.js";
import { efforts } from "../../dist/cli/search/effort.js";
import { fullLayers, fullPattern, parsePattern } from "../../dist/pattern/pattern.js";
import { uniformPattern } from "../../dist/pattern/schedule.js";
import { blockwise } from "../../dist/search/strategies/blockwise.js";
import { exhaustive } from "../../dist/search/strategies/exhaustive.js";
import { greedy } from "../../dist/search/strategies/greedy.js";
import { refine } from "../../dist/search/strategies/refine.js";
import { strategies } from "../../dist/search/strategies/strategies.js";
import { beam, floating, forward, withSwaps } from "./comparators.js";
import { all, landscapeFiles, mean, milli, optimum, patternAt, readLandscape, row, run } from "./landscapes.js";

const RANDOM_PATTERNS = 200;

/** What the presets of --effort find in one run for a half, a quarter and an eighth, and for all sizes; what they run for it. */
async function compareEfforts(names) {
  row(["`--effort`", "sizes", "not optimal", "mean, 1e-3 nats", "worst, 1e-3 nats", "layer runs, of greedy's"]);
  row(all(6).map(() => "---"));
  for (const [effort, preset] of Object.entries(efforts)) {
    const { strategy, race, ...settings } = preset;
    const method = {
      strategy: strategies.find((one) => one.name === strategy),
      settings,
      ...(race === true ? { race: { alpha: 0.1, block: 2, seed: 0 } } : {}),
    };
    for (const sizes of ["1/2, 1/4, 1/8", "all"]) {
      const regrets = [];
      const ratios = [];
      for (const name of names) {
        const landscape = readLandscape(name);
        const { layers } = landscape;
        const some = [2, 4, 8].map((part) => Math.max(2, Math.round(layers / part)));
        const targets = sizes === "all" ? all(layers - 2).map((index) => index + 2) : [...new Set(some)];
        const found = await run(landscape, method, targets);
        ratios.push(found.layers / (await run(landscape, { strategy: greedy }, targets)).layers);
        for (const { pattern, evaluation } of found.patterns) {
          regrets.push(Math.max(0, evaluation.loss - optimum(landscape, fullLayers(pattern).length).loss));
        }
      }
      row([
        effort,
        sizes,
        `${regrets.filter((regret) => regret > 1.5e-5).length} of ${regrets.length}`,
        milli(regrets.reduce((sum, regret) => sum + regret, 0) / regrets.length),
        milli(Math.max(...regrets)),
        `${Math.min(...ratios).toFixed(2)}-${Math.max(...ratios).toFixed(2)}`,
      ]);
    }
  }
}

async function compareModels(names) {
  row([
    "model",
    "sizes",
    "greedy: not optimal at (1e-3 nats)",
    "default, one size a run",
    "all sizes in one run",
    "layers, of greedy's",
  ]);
  row(all(6).map(() => "---"));
  for (const name of names) {
    const landscape = readLandscape(name);
    const sizes = all(landscape.layers - 2).map((index) => index + 2);
    const best = new Map(sizes.map((size) => [size, optimum(landscape, size).loss]));
    const misses = (found) =>
      found
        .map(({ pattern, evaluation }) => [fullLayers(pattern).length, evaluation.loss])
        .filter(([size, loss]) => loss > best.get(size) + 1.5e-5)
        .map(([size, loss]) => `${size}: ${milli(loss - best.get(size))}`)
        .join(", ") || "-";
    const plain = await run(landscape, { strategy: greedy }, sizes);
    const single = [];
    const ratios = [];
    for (const size of sizes) {
      const again = await run(landscape, { strategy: refine }, [size]);
      ratios.push(again.layers / (await run(landscape, { strategy: greedy }, [size])).layers);
      single.push(...again.patterns);
    }
    const together = await run(landscape, { strategy: refine }, sizes);
    row([
      name,
      `${sizes[0]}-${sizes.at(-1)}`,
      misses(plain.patterns),
      misses(single),
      misses(together.patterns),
      `${Math.min(...ratios).toFixed(2)}-${Math.max(...ratios).toFixed(2)}`,
    ]);
  }
}

async function compareStrategies(name) {
  const landscape = readLandscape(name);
  const { layers } = landscape;
  const { calibration, "held-out": heldOut } = landscape.sets;
  const targets = [2, 4, 8].map((part) => Math.max(2, Math.round(layers / part)));
  const base = mean(calibration, fullPattern(layers));
  const outBase = heldOut === undefined ? 0 : mean(heldOut, fullPattern(layers));
  const cell = (pattern) =>
    `${milli(mean(calibration, pattern) - base)}${heldOut === undefined ? "" : ` / ${milli(mean(heldOut, pattern) - outBase)}`}`;
  console.log(`\n${name}: 1e-3 nats above every indexer, calibration / held out\n`);
  row([
    "strategy",
    ...targets.map((size) => `${size} of ${layers}`),
    "patterns",
    "sequences",
    "layers, of naive greedy",
  ]);
  row(all(targets.length + 4).map(() => "---"));
  const plain = await run(landscape, { strategy: greedy }, targets);
  const naive = plain.sequenceEvaluations * layers;
  const race = { alpha: 0.1, block: 2, seed: 0 };
  for (const [title, method, quantity] of [
    ["greedy", { strategy: greedy }],
    ["greedy, race", { strategy: greedy, race }],
    ["greedy, kl", { strategy: greedy, bounded: true }, "kl"],
    ["blockwise, 2 blocks", { strategy: blockwise, settings: { blocks: 2 } }],
    ["forward", { strategy: forward }],
    ["forward, race", { strategy: forward, race }],
    ["beam 2, backward", { strategy: beam(2, "backward") }],
    ["beam 2, forward", { strategy: beam(2, "forward") }],
    ["beam 4, forward", { strategy: beam(4, "forward") }],
    ["floating", { strategy: floating }],
    ["greedy, swaps", { strategy: withSwaps(greedy) }],
    ["refine (default)", { strategy: refine }],
    ["refine, kl", { strategy: refine, bounded: true }, "kl"],
    ["exhaustive", { strategy: exhaustive }],
  ]) {
    const result = await run(landscape, method, targets, { quantity });
    const found = targets.map((size) => result.patterns.find(({ pattern }) => fullLayers(pattern).length === size));
    row([
      title,
      ...found.map(({ pattern }) => cell(pattern)),
      result.evaluations,
      result.sequenceEvaluations,
      (result.layers / naive).toFixed(3),
    ]);
  }
  row(["uniform", ...[2, 4, 8].map((every) => cell(uniformPattern(layers, every))), "-", "-", "-"]);
  const random = Random.forPart(0, "random patterns");
  const drawn = targets.map((size) => {
    const losses = all(RANDOM_PATTERNS).map(() => {
      const full = new Set([0, ...random.sample(all(layers - 1), size - 1).map((layer) => layer + 1)]);
      return (
        mean(
          calibration,
          parsePattern(
            all(layers)
              .map((layer) => (full.has(layer) ? "F" : "S"))
              .join(""),
          ),
        ) - base
      );
    });
    losses.sort((left, right) => left - right);
    return `${milli(losses[0])}, median ${milli(losses[RANDOM_PATTERNS / 2])}`;
  });
  row([`best of ${RANDOM_PATTERNS} random`, ...drawn, RANDOM_PATTERNS, "-", "-"]);
  if (heldOut !== undefined) await showStability(landscape, targets);
}

/** Disjoint samples of the text, the patterns they give, and what each is worth on the others. */
async function showStability({ sets, ...landscape }, targets) {
  const joined = joinSets(sets.calibration, sets["held-out"], landscape.patterns);
  const order = Random.forPart(0, "stability").shuffled(all(joined.sequences));
  const third = Math.floor(joined.sequences / 3);
  const samples = [0, 1, 2].map((part) => order.slice(part * third, (part + 1) * third));
  console.log(
    `\n${landscape.name}: three disjoint samples of ${third} sequences; 1e-3 nats above every indexer on each\n`,
  );
  row(["found on", "Full", "pattern", ...samples.map((_, part) => `on ${part + 1}`)]);
  row(all(6).map(() => "---"));
  for (const [part, sequences] of samples.entries()) {
    const { patterns } = await run({ ...landscape, sets }, { strategy: refine }, targets, { set: joined, sequences });
    for (const { pattern } of patterns) {
      const losses = samples.map(
        (sample) => mean(joined, pattern, sample) - mean(joined, fullPattern(landscape.layers), sample),
      );
      row([part + 1, fullLayers(pattern).length, `\`${pattern}\``, ...losses.map(milli)]);
    }
  }
}

function joinSets(left, right, patterns) {
  const sequences = left.sequences + right.sequences;
  const nll = new Float32Array(patterns * sequences);
  for (let pattern = 0; pattern < patterns; pattern++) {
    nll.set(left.nll.subarray(pattern * left.sequences, (pattern + 1) * left.sequences), pattern * sequences);
    const start = pattern * sequences + left.sequences;
    nll.set(right.nll.subarray(pattern * right.sequences, (pattern + 1) * right.sequences), start);
  }
  return { sequences, nll };
}

/**
 * What a search by few sequences costs on other text: the default's pattern on the held-out sequences against the best one
 * that any search of that size could have found there, in nats, over random choices of the calibration sequences.
 */
async function compareSequences(names) {
  const DRAWS = 40;
  const random = Random.forPart(0, "sequences");
  row(["sequences", "searches", "median", "75%", "95%", "worst", "too good by, median", "own interval holds"]);
  row(all(8).map(() => "---"));
  const landscapes = names.map(readLandscape).filter(({ sets }) => sets["held-out"] !== undefined);
  const cases = landscapes.flatMap((landscape) =>
    [2, 4].map((share) => {
      const size = Math.round(landscape.layers / share);
      const held = all(landscape.patterns)
        .map((index) => patternAt(index, landscape.layers))
        .filter((pattern) => fullLayers(pattern).length === size)
        .map((pattern) => mean(landscape.sets["held-out"], pattern));
      return { landscape, size, best: Math.min(...held) };
    }),
  );
  for (const count of [1, 2, 3, 4, 6, 8, 12, 16]) {
    const costs = [];
    const optimism = [];
    let held = 0;
    let known = 0;
    for (const { landscape, size, best } of cases) {
      const { calibration, "held-out": other } = landscape.sets;
      const full = mean(other, fullPattern(landscape.layers));
      // There is one choice of all sixteen.
      for (let draw = 0; draw < (count === calibration.sequences ? 1 : DRAWS); draw++) {
        const sequences = random.sample(all(calibration.sequences), count).sort((a, b) => a - b);
        const [found] = (await run(landscape, { strategy: refine }, [size], { sequences })).patterns;
        const there = mean(other, found.pattern);
        const { change, changeError } = found.evaluation;
        costs.push(there - best);
        optimism.push(there - full - change);
        if (changeError === null) continue;
        known++;
        if (Math.abs(there - full - change) <= 1.96 * changeError) held++;
      }
    }
    costs.sort((a, b) => a - b);
    optimism.sort((a, b) => a - b);
    const at = (values, share) => values[Math.min(values.length - 1, Math.floor(share * values.length))].toFixed(4);
    row([
      String(count),
      String(costs.length),
      ...[0.5, 0.75, 0.95, 1].map((share) => at(costs, share)),
      at(optimism, 0.5),
      known === 0 ? "unknown" : `${Math.round((100 * held) / known)}%`,
    ]);
  }
}

/**
 * What a search says of its own stability, against a search on other text: every model with two sets of text, joined; some
 * sequences are searched on, and the 33 that are left by themselves.
 */
async function compareStability(names) {
  const DRAWS = 20;
  const OTHERS = 33;
  const random = Random.forPart(0, "stability");
  const landscapes = names.map(readLandscape).filter(({ sets }) => sets["held-out"] !== undefined);
  for (const [title, strategy] of [
    ["refine", refine],
    ["greedy", greedy],
  ]) {
    for (const count of [6, 8, 16]) {
      const patterns = bins([0, 0.3, 0.5, 0.7, 0.9]);
      const layers = bins([0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95]);
      const needs = bins([0, count + 0.5, 2 * count + 0.5, 4 * count + 0.5]);
      for (const { sets, ...landscape } of landscapes) {
        const joined = joinSets(sets.calibration, sets["held-out"], landscape.patterns);
        const targets = [...new Set([2, 3, 4, 6].map((part) => Math.max(2, Math.round(landscape.layers / part))))];
        for (let draw = 0; draw < DRAWS; draw++) {
          const order = random.shuffled(all(joined.sequences));
          const on = (sequences, stability) =>
            run({ ...landscape, sets }, { strategy }, targets, { set: joined, sequences, stability });
          const own = await on(
            order.slice(0, count).sort((a, b) => a - b),
            true,
          );
          const others = order.slice(-OTHERS).sort((a, b) => a - b);
          const there = await on(others, false);
          for (const [place, { pattern }] of own.patterns.entries()) {
            const other = there.patterns[place].pattern;
            const { agreement, full, needed } = own.stability[place];
            const regret = Math.max(0, mean(joined, pattern, others) - mean(joined, other, others));
            patterns.add(agreement, { same: pattern === other, regret });
            needs.add(needed ?? Number.POSITIVE_INFINITY, { same: pattern === other, regret });
            for (const layer of all(landscape.layers).slice(1)) {
              layers.add(full[layer], { full: other[layer] === "F" });
            }
          }
        }
      }
      const average = (cases, of) => cases.reduce((total, one) => total + Number(of(one)), 0) / cases.length;
      const percent = (cases, of) => `${Math.round(100 * average(cases, of))}%`;
      console.log(`\n${title}, ${count} sequences\n`);
      row(["resamples that agree", "searches", "other text chooses the same", "loss there, 1e-3", "95%"]);
      row(all(5).map(() => "---"));
      for (const [range, cases] of patterns.all()) {
        const sorted = cases.map(({ regret }) => regret).sort((a, b) => a - b);
        row([
          range,
          cases.length,
          percent(cases, ({ same }) => same),
          milli(average(cases, ({ regret }) => regret)),
          milli(sorted[Math.floor(0.95 * sorted.length)]),
        ]);
      }
      row(["sequences needed", "searches", "the same", "loss there, 1e-3"]);
      for (const [range, cases] of needs.all()) {
        row([range, cases.length, percent(cases, ({ same }) => same), milli(average(cases, ({ regret }) => regret))]);
      }
      row(["layer Full in", "layers", "Full on other text"]);
      for (const [range, cases] of layers.all()) row([range, cases.length, percent(cases, ({ full }) => full)]);
    }
  }
}

/** Cases by a number, in ranges from one edge to the next. */
function bins(edges) {
  const held = edges.map(() => []);
  return {
    add: (value, one) => held[edges.findLastIndex((edge) => edge <= value)].push(one),
    all: () =>
      held.flatMap((cases, at) => (cases.length === 0 ? [] : [[`${edges[at]} to ${edges[at + 1] ?? "more"}`, cases]])),
  };
}

const [chosen] = process.argv.slice(2);
const names = landscapeFiles();
if (chosen === undefined) await compareModels(names);
else if (chosen === "effort") await compareEfforts(names);
else if (chosen === "sequences") await compareSequences(names);
else if (chosen === "stability") await compareStability(names);
else await compareStrategies(chosen);
