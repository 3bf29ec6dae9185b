/** What the shelf has: all of it, or for a model. */
import { UsageError } from "../../base/errors.ts";
import { quoteWord } from "../../base/shell.ts";
import { isThere } from "../../base/user-files.ts";
import { findModel } from "../../checkpoint/hub-cache.ts";
import { isInlinePattern } from "../../engines/pattern-source.ts";
import { readServedModel, type ServedModel } from "../../engines/served-model.ts";
import { evidenceTier, isPublished } from "../../formats/published-pattern.ts";
import { countFull } from "../../pattern/pattern.ts";
import { formatTable, left, right } from "../../report/text-table.ts";
import type { Terminal } from "../console/terminal.ts";
import { knownOf } from "./pattern-input.ts";
import { evidenceWords, type KnownPattern, patternsOfName, readShelf, shapeOf } from "./shelf.ts";

/** `pattern --list`. */
export async function list(model: string | undefined, json: boolean, terminal: Terminal): Promise<void> {
  const found = model === undefined ? await wholeShelf() : await patternsFor(model);
  if (json) {
    terminal.result(JSON.stringify(found.map(describeKnown), null, 2));
    return;
  }
  if (found.length === 0) {
    const folder = model ?? "MODEL";
    terminal.note(
      `nothing is known for this model: indexcache search ${folder} -c text.jsonl --retain 1/2,1/4 -o p.json finds out`,
    );
    return;
  }
  terminal.result(
    formatTable(
      found.map(describeKnown),
      [
        left("Name", ({ name }) => name),
        right("Full", ({ full_layers: full, layers }) => `${full} of ${layers}`),
        left("Evidence", ({ evidence }) => evidence),
        left("What it is", ({ what }) => what, { fold: "below", label: "" }),
      ],
      terminal.resultWidth,
    ),
  );
  for (const tier of new Set(found.map((one) => one.tier))) terminal.note(`${tier}: ${evidenceWords[tier]}`);
  terminal.note("indexcache pattern NAME prints one, and -p NAME takes it, from any folder");
}

/** A config has its own letters; whoever asks for a pattern of a model may mean what others found for it. */
export async function pointToShelf(model: ServedModel, text: string, terminal: Terminal): Promise<void> {
  const known = await knownOf(model);
  if (known.length === 0) return;
  const names = known.map(({ name, tier }) => `${name} (${tier})`).join(", ");
  terminal.note(`this is what config.json says; the shelf has ${names}: indexcache pattern --list ${quoteWord(text)}`);
}

async function wholeShelf(): Promise<KnownPattern[]> {
  return (await readShelf()).map((entry) => ({ ...entry, tier: evidenceTier(entry.file) }));
}

/** What the shelf has for a folder, a config.json, or the name of a model. */
async function patternsFor(model: string): Promise<KnownPattern[]> {
  const isPath = await isThere(model);
  if (!isPath && isInlinePattern(model)) throw new UsageError("--list takes no pattern: it lists those for a model");
  const named = isPath ? [] : await patternsOfName(model);
  return named.length > 0 ? named : knownOf(await readServedModel(await findModel(model)));
}

function describeKnown({ name, model, file, tier }: KnownPattern) {
  const { architecture, layers } = shapeOf(file);
  const shared = { name, architecture, layers, full_layers: countFull(file.index_topk_pattern), evidence: tier };
  if (!isPublished(file)) return { ...shared, what: `searched on ${file.model.name}` };
  const { searched_on: searchedOn, certainty, sources, trained } = file.published;
  const sure = certainty === "probable" ? ", second-hand" : "";
  const what = trained === true ? `${model} was trained with it` : `searched on ${searchedOn}${sure}`;
  return { ...shared, what, certainty, sources };
}
