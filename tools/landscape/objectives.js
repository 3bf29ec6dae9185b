/**
 * What searching by another objective is worth: patterns of a model (the demo, unless another is named) found by nll, kl, answer and a mix of both, scored
 * on tasks of seeds that no search has seen.
 *
 *   npm run build
 *   node tools/landscape/objectives.js measure FOLDER 1,2,3,4,5 [MODEL]   searches and evaluations; goes on where it was stopped
 *   node tools/landscape/objectives.js collect FOLDER                     what they found, one JSON object a line
 *   node tools/landscape/objectives.js table FILE.jsonl                   the same as Markdown
 *
 * One thread. A seed decides which text is searched on, which answers are generated for the search, and, in a range of its own,
 * which tasks are asked. Seeds may be measured by several processes at once. Paths are relative to the repository.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("../../bin/indexcache.js", import.meta.url));
const answers = "ruler:vt,niah_multikey_2";
const sequences = 8;
const text = "calibration/demo.jsonl";
const sources = {
  nll: ["-c", text],
  kl: ["-c", text, "--objective", "kl"],
  answer: ["-c", answers],
  mix: ["-c", `${text}=0.5`, "-c", `${answers}=0.5`],
};
const objectives = Object.keys(sources);
/** Without niah_multikey_3 and cwe, which this model never answers, whatever the pattern. */
const core = "niah_single_1,niah_multikey_2,vt,fwe";
const suites = {
  "ruler-core": ["--tasks", core, "--lengths", "512", "--samples", "20"],
  graphwalks: ["--lengths", "1024", "--samples", "2"],
};
const oneThread = ["--device", "cpu", "--threads", "1", "--workers", "1", "--quiet"];

function indexcache(words, output) {
  if (existsSync(output)) return;
  const kept = ["journal.jsonl", "samples.jsonl"].some((end) => existsSync(`${output}.${end}`));
  const all = [...words, ...oneThread, "-o", output, ...(kept ? ["--resume"] : [])];
  const { status } = spawnSync(process.execPath, [program, ...all], {
    cwd: fileURLToPath(new URL("../..", import.meta.url)),
    env: { ...process.env, OMP_NUM_THREADS: "1" },
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (status !== 0) throw new Error(`indexcache ${all.join(" ")} ended with ${status}`);
}

const searchFile = (folder, seed, objective) => join(folder, `search-${seed}-${objective}.json`);
const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));

function patternsOf(folder, seed) {
  return Object.fromEntries(
    objectives.map((objective) => {
      const { patterns } = readJson(searchFile(folder, seed, objective));
      return [objective, Object.fromEntries(patterns.map((one) => [one.full_layers, one.index_topk_pattern]))];
    }),
  );
}

function measure(folder, seeds, model) {
  mkdirSync(folder, { recursive: true });
  for (const seed of seeds) {
    for (const objective of objectives) {
      const size = ["--sequence-length", "512", "--sequences", String(sequences), "--seed", String(seed)];
      const how = ["--strategy", "greedy", "--retain", "1/2,1/4,1/6"];
      indexcache(["search", model, ...sources[objective], ...size, ...how], searchFile(folder, seed, objective));
    }
    const found = Object.values(patternsOf(folder, seed)).flatMap((bySize) => Object.values(bySize));
    const arms = [...new Set(found)].flatMap((pattern) => ["--pattern", pattern]);
    for (const [suite, asked] of Object.entries(suites)) {
      const output = join(folder, `eval-${seed}-${suite}.json`);
      indexcache(["eval", model, "--suite", suite, ...asked, "--seed", String(seed), ...arms], output);
    }
  }
}

/** Per seed: the patterns; then for each suite, arm and task the scores of the items, in the order of the items. */
function collect(folder) {
  const seeds = readdirSync(folder).flatMap(
    (file) => /^eval-(\d+)-ruler-core\.json\.samples\.jsonl$/.exec(file)?.[1] ?? [],
  );
  for (const seed of seeds.map(Number).sort((left, right) => left - right)) {
    console.log(JSON.stringify({ seed, sequences, patterns: patternsOf(folder, seed) }));
    for (const suite of Object.keys(suites)) {
      const path = join(folder, `eval-${seed}-${suite}.json.samples.jsonl`);
      if (!existsSync(path)) continue;
      const groups = new Map();
      for (const line of readFileSync(path, "utf8").trim().split("\n").slice(1)) {
        const { task, id, arm, score, gold_loss: gold } = JSON.parse(line);
        const key = `${arm.pattern} ${task}`;
        const group = groups.get(key) ?? { seed, suite, pattern: arm.pattern, task, items: [] };
        group.items.push({ id: Number(id), score, gold: gold === undefined ? null : gold.nats / gold.tokens });
        groups.set(key, group);
      }
      const common = (task) =>
        Math.min(...[...groups.values()].filter((one) => one.task === task).map((one) => one.items.length));
      for (const { items: all, ...group } of [...groups.values()]) {
        // Of an evaluation that is under way, the items that every arm has answered.
        const items = all.slice(0, common(group.task));
        if (items.length < 2) continue;
        items.sort((left, right) => left.id - right.id);
        const scores = items.map(({ score }) => Number(score.toFixed(4)));
        const gold = items.map(({ gold: nats }) => (nats === null ? null : Number(nats.toFixed(5))));
        console.log(JSON.stringify({ ...group, scores, gold_loss: gold }));
      }
    }
  }
}

/** Two-sided 95% of Student's t, by degrees of freedom. */
const student = [Number.NaN, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const variance = (values) => {
  const centre = mean(values);
  return values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1);
};

/**
 * Mean and half of its 95% interval. Of several seeds, each a search and its tasks, over these; of one over its items, paired
 * and task by task: that says nothing of other searches.
 * @param seeds for each seed, for each task, a difference for each item
 */
function interval(seeds) {
  const centre = mean(seeds.map((tasks) => mean(tasks.map(mean))));
  if (seeds.length > 1) {
    const half =
      student[seeds.length - 1] * Math.sqrt(variance(seeds.map((tasks) => mean(tasks.map(mean)))) / seeds.length);
    return { centre, half };
  }
  const [tasks] = seeds;
  const error = Math.sqrt(tasks.reduce((sum, items) => sum + variance(items) / items.length, 0)) / tasks.length;
  return { centre, half: 1.96 * error };
}

function table(path) {
  const lines = readFileSync(path, "utf8").trim().split("\n").map(JSON.parse);
  const searches = lines.filter(({ patterns }) => patterns !== undefined);
  const sizes = Object.keys(searches[0].patterns.nll).sort((left, right) => right - left);
  const full = "F".repeat(searches[0].patterns.nll[sizes[0]].length);
  for (const suite of Object.keys(suites)) {
    const measured = lines.filter((line) => line.suite === suite);
    const seeds = searches.filter(({ seed }) => measured.some((line) => line.seed === seed));
    if (seeds.length === 0) continue;
    const items = (seed, pattern, of) =>
      measured.filter((line) => line.seed === seed && line.pattern === pattern).map((line) => line[of]);
    const against = (left, right, of) =>
      interval(
        seeds.map(({ seed, patterns }) => {
          const other = items(seed, right(patterns), of);
          return items(seed, left(patterns), of).map((task, place) =>
            task.map((value, item) => (of === "scores" ? 100 : 1) * (value - other[place][item])),
          );
        }),
      );
    const cell = ({ centre, half }, digits = 1) =>
      `${centre >= 0 ? "+" : ""}${centre.toFixed(digits)} ± ${half.toFixed(digits)}`;
    const tasks = [...new Set(measured.map((line) => `${line.task} (${line.scores.length})`))];
    const every = mean(seeds.map(({ seed }) => 100 * mean(items(seed, full, "scores").map(mean))));
    console.log(`\n${suite}: ${tasks.join(", ")}; ${seeds.length} seeds; every indexer scores ${every.toFixed(1)}\n`);
    console.log(
      "| Full | objective | pattern of the first seed | change of the score | against nll's | gold loss against nll's |",
    );
    console.log("|---|---|---|---|---|---|");
    for (const size of sizes) {
      for (const objective of objectives) {
        const own = (patterns) => patterns[objective][size];
        const nll = (patterns) => patterns.nll[size];
        const change = cell(against(own, () => full, "scores"));
        const versus =
          objective === "nll" ? ["", ""] : [cell(against(own, nll, "scores")), cell(against(own, nll, "gold_loss"), 3)];
        console.log(
          `| ${size} of ${full.length} | ${objective} | ${own(searches[0].patterns)} | ${change} | ${versus.join(" | ")} |`,
        );
      }
    }
  }
}

const [what, where, list = "1,2,3,4,5", model = "models/demo"] = process.argv.slice(2);
if (what === "measure" && where !== undefined) measure(where, list.split(",").map(Number), model);
else if (what === "collect" && where !== undefined) collect(where);
else if (what === "table" && where !== undefined) table(where);
else {
  console.error("node tools/landscape/objectives.js measure FOLDER [SEEDS [MODEL]] | collect FOLDER | table FILE");
  process.exitCode = 2;
}
