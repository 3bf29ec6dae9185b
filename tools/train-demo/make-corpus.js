// Writes the training corpus: one document a line, with the character ranges of its answers.
//   node tools/train-demo/make-corpus.js --seed 1 --documents 200000 --out corpus.jsonl
// Node 22.18 or newer runs the TypeScript that it imports.
// Two thirds of the documents have any length, one third nearly fills a window of 1,024
// tokens: the short ones teach how to look things up, the long ones how to do it from far away.

import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { readArguments } from "../arguments.js";
import { makeDocuments } from "./corpus/documents.ts";

const { values } = readArguments({
  seed: { type: "string", default: "1" },
  documents: { type: "string", default: "1000" },
  longest: { type: "string", default: "990" },
  out: { type: "string", default: "corpus.jsonl" },
});

const seed = Number(values.seed);
const anyLength = makeDocuments({ seed, tokens: [100, 700] });
const nearlyFull = makeDocuments({ seed: seed + 0x10000, tokens: [700, Number(values.longest)] });
const out = createWriteStream(values.out);
for (let i = 0; i < Number(values.documents); i++) {
  const { kind, text, answers } = (i % 3 === 2 ? nearlyFull : anyLength).next().value;
  if (!out.write(`${JSON.stringify({ kind, text, answers })}\n`)) await once(out, "drain");
}
out.end();
await once(out, "finish");
