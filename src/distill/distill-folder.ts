/**
 * What a distillation keeps on disk while it runs: states at two boundaries, the training at hand, trained indexers, and the
 * journal that says which of them are whole. Gone once the result is written.
 */
import { readdir, rm, rmdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { makeFolder } from "../base/files.ts";
import { readFloats, writeFloats } from "../checkpoint/derived/float-file.ts";
import { AppendLog, type LogKind, type LogMode, requireFittingLog } from "../formats/append-log.ts";
import { count, hash, settings } from "../formats/fields.ts";
import { type BoundaryShape, StatesInFile } from "../runtime/training/boundary-states.ts";
import type { IndexerParameters } from "../runtime/training/gradient-session.ts";
import type { DistillationStore, Measured } from "./group-training.ts";
import { fromArrays, type SavedTraining, toArrays } from "./saved-training.ts";

const fingerprintSchema = z.object({
  model_config_hash: z.string(),
  weight_hash: z.string(),
  text_hash: z.string(),
  held_out_hash: z.string(),
  pattern: z.string(),
  settings,
  tool_version: z.string(),
});

type DistillFingerprint = z.infer<typeof fingerprintSchema>;

/** Which boundaries are complete, which groups are trained, and where the one at hand stands. */
const entrySchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("boundary"), layer: count, sha256: hash }),
  z.object({ kind: z.literal("checkpoint"), group: count, step: count, sha256: hash }),
  z.object({
    kind: z.literal("measured"),
    group: count,
    step: count,
    missed: z.record(z.string(), z.number()),
    divergence: z.record(z.string(), z.number()),
  }),
  z.object({ kind: z.literal("trained"), group: count, step: count, sha256: hash }),
]);

type DistillEntry = z.infer<typeof entrySchema>;

const distillJournal: LogKind<DistillFingerprint, DistillEntry> = {
  kind: "indexcache-distill-journal",
  format: 1,
  fingerprint: fingerprintSchema,
  entry: entrySchema,
  compared: ({ settings, ...rest }) =>
    new Map([
      ["model configuration", rest.model_config_hash],
      ["weights", rest.weight_hash],
      ["text", rest.text_hash],
      ["held-out text", rest.held_out_hash],
      ["pattern", rest.pattern],
      ...Object.entries(settings).map(([name, value]) => [name, String(value)] as const),
      ["version of indexcache", rest.tool_version],
    ]),
};

const journalName = "journal.jsonl";

const boundaryName = /^boundary-\d+\.bf16$/;
const stateName = /^group-\d+-[a-z0-9-]+\.safetensors$/;

export class DistillFolder implements DistillationStore {
  readonly path: string;
  readonly #journal: AppendLog<DistillEntry>;
  readonly #entries: DistillEntry[];
  #appended: Promise<unknown> = Promise.resolve();
  /** Boundaries on their way to the disk while the training goes on, by layer. */
  readonly #settling = new Map<number, Promise<void>>();

  private constructor(path: string, journal: AppendLog<DistillEntry>) {
    this.path = path;
    this.#journal = journal;
    this.#entries = [...journal.entries];
  }

  /** @throws InputError where there is a journal and the mode is `create`; ResumeMismatchError where it is another run's */
  static async open(path: string, fingerprint: DistillFingerprint, mode: LogMode): Promise<DistillFolder> {
    await makeFolder(path, { what: `Cannot keep the work in "${path}"` });
    return new DistillFolder(path, await AppendLog.open(join(path, journalName), distillJournal, fingerprint, mode));
  }

  /** @throws InputError, before anything is read, where `open` would refuse what is there or is not */
  static async requireFitting(path: string, mode: LogMode): Promise<void> {
    await requireFittingLog(join(path, journalName), mode);
  }

  async boundary(layer: number, shape: BoundaryShape): Promise<StatesInFile | undefined> {
    const entry = this.#entries.findLast((one) => one.kind === "boundary" && one.layer === layer);
    if (entry?.kind !== "boundary") return undefined;
    return await StatesInFile.reopen(this.#boundaryPath(layer), shape, entry.sha256);
  }

  async newBoundary(layer: number, shape: BoundaryShape): Promise<StatesInFile> {
    return await StatesInFile.create(this.#boundaryPath(layer), shape);
  }

  async boundaryComplete(layer: number, states: StatesInFile): Promise<void> {
    const sha256 = await states.hash();
    const settled = states.sync().then(() => this.#append({ kind: "boundary", layer, sha256 }));
    settled.catch(() => undefined);
    this.#settling.set(layer, settled);
  }

  async dropBoundary(layer: number): Promise<void> {
    await this.#settle(layer);
    await rm(this.#boundaryPath(layer), { force: true });
  }

  async trained(group: number): Promise<{ parameters: Map<number, IndexerParameters>; step: number } | undefined> {
    const entry = this.#entries.findLast((one) => one.kind === "trained" && one.group === group);
    if (entry?.kind !== "trained") return undefined;
    const { best } = fromArrays(await readFloats(this.#statePath(group, "trained"), entry.sha256));
    return { parameters: best.parameters as Map<number, IndexerParameters>, step: entry.step };
  }

  async saveTrained(group: number, saved: SavedTraining): Promise<void> {
    for (const layer of this.#settling.keys()) await this.#settle(layer);
    const sha256 = await writeFloats(this.#statePath(group, "trained"), toArrays(saved));
    await this.#append({ kind: "trained", group, step: saved.best.step, sha256 });
    for (const slot of [0, 1]) await rm(this.#statePath(group, `checkpoint-${slot}`), { force: true });
  }

  async checkpoint(group: number): Promise<SavedTraining | undefined> {
    const entry = this.#entries.findLast((one) => one.kind === "checkpoint" && one.group === group);
    if (entry?.kind !== "checkpoint") return undefined;
    const path = this.#statePath(group, `checkpoint-${this.#checkpoints(group) % 2}`);
    return fromArrays(await readFloats(path, entry.sha256));
  }

  /** Two files take turns: the one that the journal names is never the one that is being written. */
  async saveCheckpoint(group: number, saved: SavedTraining): Promise<void> {
    const slot = (this.#checkpoints(group) + 1) % 2;
    const sha256 = await writeFloats(this.#statePath(group, `checkpoint-${slot}`), toArrays(saved));
    await this.#append({ kind: "checkpoint", group, step: saved.training.step, sha256 });
  }

  /** All that was measured of a group; what a run measured twice, because it was cut in between, counts once. */
  measured(group: number): Measured[] {
    const found = new Map<number, Measured>();
    for (const entry of this.#entries) {
      if (entry.kind !== "measured" || entry.group !== group) continue;
      const { step, missed, divergence } = entry;
      found.set(step, { step, missed: byLayer(missed), divergence: byLayer(divergence) });
    }
    return [...found.values()];
  }

  async saveMeasured(group: number, { step, missed, divergence }: Measured): Promise<void> {
    const entry = { missed: Object.fromEntries(missed), divergence: Object.fromEntries(divergence) };
    await this.#append({ kind: "measured", group, step, ...entry });
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#settling.values());
    await this.#journal.close();
  }

  /** Bytes of the boundaries that are there already. */
  static async boundaryBytes(path: string): Promise<number> {
    let bytes = 0;
    for (const name of await readdir(path).catch((): string[] => [])) {
      if (boundaryName.test(name)) bytes += (await stat(join(path, name))).size;
    }
    return bytes;
  }

  /** Takes its files away, once the result is in its place, and the folder where nothing else is in it. */
  async remove(): Promise<void> {
    await this.close();
    for (const name of await readdir(this.path)) {
      if (name === journalName || boundaryName.test(name) || stateName.test(name)) await rm(join(this.path, name));
    }
    await rmdir(this.path).catch(() => undefined);
  }

  async #append(entry: DistillEntry): Promise<void> {
    const appended = this.#appended.then(() => this.#journal.append(entry));
    this.#appended = appended.catch(() => undefined);
    await appended;
    this.#entries.push(entry);
  }

  /** @throws RuntimeFailure where a boundary did not get to the disk */
  async #settle(layer: number): Promise<void> {
    await this.#settling.get(layer);
    this.#settling.delete(layer);
  }

  #checkpoints(group: number): number {
    return this.#entries.filter((one) => one.kind === "checkpoint" && one.group === group).length;
  }

  #boundaryPath(layer: number): string {
    return join(this.path, `boundary-${layer}.bf16`);
  }

  #statePath(group: number, what: string): string {
    return join(this.path, `group-${group}-${what}.safetensors`);
  }
}

function byLayer(record: Record<string, number>): Map<number, number> {
  return new Map(Object.entries(record).map(([layer, value]) => [Number(layer), value]));
}
