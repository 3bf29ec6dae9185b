/** The pattern for each serving engine, ready to paste. */
import { checkPattern, hasErrors } from "../../engines/check.ts";
import { dialects, engineNames } from "../../engines/engines.ts";
import { modelOfLayers, type ServedModel } from "../../engines/served-model.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { Evidence } from "./evidence.ts";
import { blocks, bullets, code, codeBlock, text } from "./markdown.ts";
import type { Section } from "./section.ts";

/** Of the first search: a report has one pattern that it recommends. */
export function servingSection({ searches: [search] }: Evidence): Section | undefined {
  if (search === undefined) return undefined;
  const { index_topk_pattern: pattern, model } = search.file;
  const served = modelOfLayers(model.layers, model.architecture);
  return {
    heading: "Serving",
    body: blocks(
      `${code(pattern)}, from ${text(search.name)}. Rules of each engine as they were read from its source; \`indexcache pattern\` checks them against a config and pipeline stages.`,
      ...engineNames.map((engine) => engineBlock(dialects[engine], pattern, served)),
    ),
    charts: [],
  };
}

function engineBlock(dialect: (typeof dialects)["vllm"], pattern: Pattern, model: ServedModel): string {
  const heading = `### ${dialect.title}`;
  const findings = checkPattern(pattern, model, { dialect });
  const remarks = findings.map(({ message }) => text(message));
  if (hasErrors(findings)) return blocks(heading, bullets(remarks));
  const lines = dialect.argument(dialect.fields(pattern, model));
  return blocks(
    heading,
    codeBlock(dialect.engine === "transformers" ? "python" : "sh", lines),
    bullets([...remarks, `Pipeline stages: ${text(dialect.facts.pipeline)}.`, `Read from ${text(dialect.readFrom)}.`]),
  );
}
