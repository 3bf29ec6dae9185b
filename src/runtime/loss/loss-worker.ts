/**
 * A share of the windows and the child process that computes it. One that dies is replaced and opens the same windows; the
 * request names its base pattern, so that the new child computes the boundary states anew.
 */
import { fileURLToPath } from "node:url";
import type { Pattern } from "../../pattern/pattern.ts";
import type { ComputeDevice, EvaluateOptions, PatternRequest } from "../measurement.ts";
import { type FailedReply, ReplaceableProcess } from "../process/replaceable-process.ts";
import type { SequenceResults } from "./loss-backend.ts";
import type { ProcessSettings } from "./open-losses.ts";

/** Parent to child. Everything passes through structured clone. */
export type LossRequest =
  | { kind: "open"; path: string; windows: Int32Array[]; settings: ProcessSettings }
  | { kind: "evaluate"; pattern: Pattern; options: Omit<EvaluateOptions, "signal"> }
  | { kind: "walk"; requests: readonly PatternRequest[] };

/** Child to parent, one for each request. */
export type LossReply =
  | { kind: "opened"; plan: string[]; sideBySide: number }
  | ({ kind: "evaluated" } & SequenceResults)
  | { kind: "walked"; results: SequenceResults[] }
  | FailedReply;

type Opened = Extract<LossReply, { kind: "opened" }>;
type Evaluated = Extract<LossReply, { kind: "evaluated" }>;
type Walked = Extract<LossReply, { kind: "walked" }>;

export interface WorkerSettings {
  /** For people: `worker 2 of 3 on cuda:1`. */
  name: string;
  open: Extract<LossRequest, { kind: "open" }>;
  /** Hears of a child that died and was replaced. */
  onReplacement?: ((words: string) => void) | undefined;
  /** The child's program; another one in tests. */
  program?: string | undefined;
}

export class LossWorker {
  readonly #process: ReplaceableProcess<Opened>;

  constructor({ name, open, onReplacement, program }: WorkerSettings) {
    this.#process = new ReplaceableProcess({
      name,
      program: program ?? fileURLToPath(new URL("./loss-process.js", import.meta.url)),
      opening: open,
      hint: open.settings.room === undefined ? deathHint(open.settings.device) : partsHint,
      // The C library keeps freed memory for itself otherwise: what a layer leaves is to be the next one's, or the system's.
      ...(open.settings.room === undefined ? {} : { environment: { MALLOC_MMAP_THRESHOLD_: String(largeBlock) } }),
      onReplacement,
    });
  }

  open(): Promise<Opened> {
    return this.#process.inTurn(async (_, opened) => opened);
  }

  /** @throws the child's own error, or RuntimeFailure where children die one after the other */
  evaluate(pattern: Pattern, options: Omit<EvaluateOptions, "signal">): Promise<Evaluated> {
    return this.#process.inTurn((child) => child.ask<Evaluated>({ kind: "evaluate", pattern, options }));
  }

  /** @throws as `evaluate` does */
  async walk(requests: readonly PatternRequest[]): Promise<SequenceResults[]> {
    const { results } = await this.#process.inTurn((child) => child.ask<Walked>({ kind: "walk", requests }));
    return results;
  }

  end(): void {
    this.#process.end();
  }
}

/** Bytes of a block of memory that goes back to the system as soon as it is freed. */
const largeBlock = 2 ** 18;

const partsHint =
  "if memory ran out, give less of it with --memory; a search with -o can go on with --resume, its journal holds every finished evaluation";

function deathHint(device: ComputeDevice): string {
  return device === "cpu"
    ? "if memory ran out, use fewer workers; a search with -o can go on with --resume, its journal holds every finished evaluation"
    : "shorter sequences or --dtype float16 take less memory; a search with -o can go on with --resume --device cpu, its journal holds every finished evaluation";
}
