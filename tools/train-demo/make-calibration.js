// Writes the calibration set, the held-out set, the demo prompt and their manifest.
//   node tools/train-demo/make-calibration.js
// Node 22.18 or newer runs the TypeScript that it imports.
// Each text tokenizes to a little more than one window of 1,024 tokens: a leading document
// that ends inside the window, so that its questions count, and a second one that fills the rest.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Tokenizer } from "@huggingface/tokenizers";
import { hashBytes } from "../../src/base/files.ts";
import { Random } from "../../src/base/random.ts";
import { corpusVersion, makeDocument } from "./corpus/documents.ts";
import { makeNiah } from "./corpus/niah.ts";

const path = (name) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const tokenizerText = readFileSync(path("models/demo/tokenizer.json"), "utf8");
const tokenizer = new Tokenizer(
  JSON.parse(tokenizerText),
  JSON.parse(readFileSync(path("models/demo/tokenizer_config.json"), "utf8")),
);
const count = (text) => tokenizer.encode(text).ids.length;

const window = 1024;
const leading = ["needles", "chain", "story", "needles", "copies", "chain", "needle", "inventory"];
const filling = ["story", "copies", "pairs", "inventory", "programs"];

/** One text of at least `window` + 8 tokens. */
function makeText(seed, i) {
  const random = Random.forPart(seed, `calibration/${i}`);
  let text = makeDocument(random, leading[i % leading.length], random.integer(600, 900)).text;
  while (count(text) < window + 8) {
    const left = window - count(text);
    text += `\n\n${makeDocument(random, random.pick(filling), Math.max(90, left + 40)).text}`;
  }
  return text;
}

/** Writes one set and returns its manifest entry. */
function writeSet(file, seed, documents) {
  const texts = Array.from({ length: documents }, (_, i) => makeText(seed, i));
  const content = texts.map((text) => `${JSON.stringify({ text })}\n`).join("");
  writeFileSync(path(`calibration/${file}`), content);
  const tokens = texts.map(count);
  return {
    file,
    seed,
    documents,
    tokens: tokens.reduce((sum, n) => sum + n, 0),
    shortestDocumentTokens: Math.min(...tokens),
    sha256: hashBytes(content),
  };
}

const sets = [writeSet("demo.jsonl", 20001, 16), writeSet("held-out.jsonl", 30001, 32)];

const promptSeed = 40001;
const task = makeNiah(Random.forPart(promptSeed, "demo-prompt"), { haystack: "essay", units: 66, keys: 3, depth: 0.3 });
const prompt = task.input + task.answerPrefix;
writeFileSync(path("calibration/demo-prompt.txt"), prompt);

const manifest = {
  generator: {
    module: "tools/train-demo/corpus/documents.ts",
    version: corpusVersion,
    script: "tools/train-demo/make-calibration.js",
  },
  tokenizer: { file: "models/demo/tokenizer.json", sha256: hashBytes(tokenizerText) },
  window,
  trainingSeeds: [1, 65537],
  sets,
  prompt: {
    file: "demo-prompt.txt",
    seed: promptSeed,
    tokens: count(prompt),
    answer: task.outputs[0],
    sha256: hashBytes(prompt),
  },
};
writeFileSync(path("calibration/manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
for (const set of [...sets, manifest.prompt]) console.log(JSON.stringify(set));
