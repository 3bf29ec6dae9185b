/** Where every number comes from: commands, versions and fingerprints. */
import { left } from "../text-table.ts";
import type { Evidence, Source } from "./evidence.ts";
import { code, codeBlock, table, text } from "./markdown.ts";
import { blocks, type Section } from "./section.ts";

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
    ...searches.map(({ file, ...source }) => ({ ...source, kind: "search", ...fingerprints(file), tool: file.tool })),
    ...analyses.map(({ file, ...source }) => ({ ...source, kind: "analysis", ...fingerprints(file), tool: file.tool })),
    ...benches.map(({ file, ...source }) => ({ ...source, kind: "bench", ...unbound, tool: file.tool })),
    ...latencies.map(({ file, ...source }) => ({ ...source, kind: "latency", ...unbound, tool: file.tool })),
    ...evaluations.map(({ file, ...source }) => ({
      ...source,
      kind: "evaluation",
      weights: file.model.weight_hash,
      config: file.model.config_hash,
      calibration: undefined,
      tool: file.tool,
    })),
  ];
}

/** Timings may be of other weights and shapes. */
const unbound = { weights: undefined, config: undefined, calibration: undefined };

function fingerprints(file: {
  model: { weight_hash?: string | undefined; config_hash: string };
  calibration: { hash: string };
}): Pick<Origin, "weights" | "config" | "calibration"> {
  return { weights: file.model.weight_hash, config: file.model.config_hash, calibration: file.calibration.hash };
}

function hash(value: string | undefined): string {
  return value === undefined ? "" : code(value.slice(0, SHOWN));
}

/** Only the name: where a file lies on the machine is nobody's business. */
function fileName(path: string): string {
  return path.split(/[\\/]/).at(-1) ?? path;
}
