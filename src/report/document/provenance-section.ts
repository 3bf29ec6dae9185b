/** Where every number comes from: commands, versions and fingerprints. */
import { left } from "../text-table.ts";
import type { Evidence, Source } from "./evidence.ts";
import { blocks, code, codeBlock, table, text } from "./markdown.ts";
import type { Section } from "./section.ts";

interface Origin extends Source {
  kind: string;
  tool: {
    version: string;
    runtime: string;
    device?: string | undefined;
    dtype?: string | undefined;
    command?: string | undefined;
  };
  weights: string | undefined;
  config: string | undefined;
  calibration: string | undefined;
}

/** Hex digits of a hash that tables show. */
const SHOWN = 16;

export function provenanceSection(evidence: Evidence): Section {
  const origins = originsOf(evidence);
  const made = table(origins, [
    left("File", ({ path }) => code(fileName(path))),
    left("Kind", ({ kind }) => kind),
    left("SHA-256", ({ sha256 }) => hash(sha256)),
    left("Weights", ({ weights }) => hash(weights)),
    left("Config", ({ config }) => hash(config)),
    left("Calibration tokens", ({ calibration }) => hash(calibration)),
    left("Made with", ({ tool: { version, runtime, device, dtype } }) =>
      text([`indexcache ${version}`, runtime, device, dtype].filter((part) => part !== undefined).join(", ")),
    ),
  ]);
  const commands = origins.flatMap(({ tool }) => (tool.command === undefined ? [] : [tool.command]));
  const silent = origins.filter(({ tool }) => tool.command === undefined).map(({ path }) => code(fileName(path)));
  return {
    heading: "How it was made",
    body: blocks(
      made,
      `Hashes are shortened to ${SHOWN} digits; the files have them whole. Weights and config are the same in all but files of bench, or this report would not exist; losses on other calibration tokens have a chart of their own.`,
      commands.length === 0 ? undefined : blocks("Commands:", codeBlock("sh", commands)),
      silent.length === 0 ? undefined : `No command is recorded in ${silent.join(", ")}.`,
    ),
    charts: [],
  };
}

function originsOf({ searches, analyses, benches, latencies, evaluations }: Evidence): Origin[] {
  return [
    ...searches.map((one) => originOf("search", one, one.file)),
    ...analyses.map((one) => originOf("analysis", one, one.file)),
    // Timings may be of other weights and shapes.
    ...benches.map((one) => originOf("bench", one, { tool: one.file.tool })),
    ...latencies.map((one) => originOf("latency", one, { tool: one.file.tool })),
    ...evaluations.map((one) => originOf("evaluation", one, one.file)),
  ];
}

interface MadeFile {
  tool: Origin["tool"];
  model?: { weight_hash?: string | undefined; config_hash: string };
  calibration?: { hash: string };
}

function originOf(kind: string, { path, name, sha256 }: Source, { tool, model, calibration }: MadeFile): Origin {
  const fingerprints = { weights: model?.weight_hash, config: model?.config_hash, calibration: calibration?.hash };
  return { path, name, sha256, kind, tool, ...fingerprints };
}

function hash(value: string | undefined): string {
  return value === undefined ? "" : code(value.slice(0, SHOWN));
}

/** Only the name: where a file lies on the machine is nobody's business. */
function fileName(path: string): string {
  return path.split(/[\\/]/).at(-1) ?? path;
}
