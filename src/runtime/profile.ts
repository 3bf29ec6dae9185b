/** What ONNX Runtime's own profile says: which provider ran which operator, for how long, and what was copied between. */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { parseJson } from "../formats/validation.ts";

/** All runs of one operator on one provider. */
export interface OperatorProfile {
  provider: string;
  operator: string;
  runs: number;
  /** Host time. On a GPU kernels go on after their node has ended, unless launches are made to block. */
  seconds: number;
  /** Bytes of the outputs, where the runtime states them. */
  bytes: number;
}

export interface SessionProfile {
  operators: OperatorProfile[];
  /** Copies between host and device inside the graph, and their bytes. */
  copies: { toDevice: OperatorProfile; toHost: OperatorProfile };
}

const eventSchema = z.object({
  cat: z.string(),
  name: z.string(),
  dur: z.number().optional(),
  args: z.object({ op_name: z.string(), provider: z.string(), output_size: z.string() }).partial().optional(),
});

/** Copies that ONNX Runtime puts between nodes of different providers. */
const copyOperators = { toDevice: "MemcpyFromHost", toHost: "MemcpyToHost" } as const;

/** Reads a profile that a session wrote; operators with the most time first. */
export async function readProfile(path: string): Promise<SessionProfile> {
  const events = parseJson(await readFile(path, "utf8"), z.array(eventSchema), `"${path}"`);
  const operators = new Map<string, OperatorProfile>();
  for (const { cat, name, dur = 0, args = {} } of events) {
    if (cat !== "Node" || !name.endsWith("_kernel_time")) continue;
    const { op_name: operator = "", provider = "" } = args;
    const key = `${provider} ${operator}`;
    const found = operators.get(key) ?? { provider, operator, runs: 0, seconds: 0, bytes: 0 };
    found.runs++;
    found.seconds += dur / 1e6;
    found.bytes += Number(args.output_size ?? 0);
    operators.set(key, found);
  }
  const sorted = [...operators.values()].sort((a, b) => b.seconds - a.seconds);
  const copies = (operator: string): OperatorProfile =>
    sorted.find((entry) => entry.operator === operator) ?? { provider: "", operator, runs: 0, seconds: 0, bytes: 0 };
  return {
    operators: sorted,
    copies: { toDevice: copies(copyOperators.toDevice), toHost: copies(copyOperators.toHost) },
  };
}

/**
 * Operators that ran on the CPU although the session has a device: a graph is written so that only its control flow and
 * arithmetic on shapes do.
 */
export function fallbacks({ operators }: SessionProfile): OperatorProfile[] {
  return operators.filter(({ provider }) => provider === "CPUExecutionProvider");
}
