/** What a pass of one pattern leaves of a sequence, in memory or in a temporary file. */
import type { SelectedKeys } from "../stages/stage-model.ts";
import type { Sized } from "./kept-states.ts";
import type { Region, TemporaryFile } from "./temporary-file.ts";
import type { PatternStates } from "./window-losses.ts";

export interface StagedStates extends PatternStates {
  /** By layer: the hidden states that enter it. Those below a first difference are the same arrays. */
  boundaries: readonly (Float32Array | Region)[];
  /** By Full layer, chunk by chunk. */
  selected: ReadonlyMap<number, readonly KeptKeys[]>;
}

export interface KeptKeys {
  indices: Int32Array | Region;
  width: number;
}

export function partsOf({ boundaries, selected }: StagedStates): Sized[] {
  return [...boundaries, ...[...selected.values()].flatMap((chunks) => chunks.map(({ indices }) => indices))];
}

/** Puts arrays where they are kept and gets them back. */
export class StateStorage {
  readonly #file: TemporaryFile;
  /** Or arrays stay in memory. */
  readonly #writes: boolean;
  readonly #written = new Set<Region>();

  /** @param file what `keep` writes to if `writes`, and what regions of other storages are read from */
  constructor(file: TemporaryFile, writes: boolean) {
    this.#file = file;
    this.#writes = writes;
  }

  async keep<A extends ArrayBufferView>(array: A): Promise<A | Region> {
    if (!this.#writes) return array;
    const region = await this.#file.write(array);
    this.#written.add(region);
    return region;
  }

  /** What is in the file already stays where it is. */
  async keepKeys(chunks: readonly KeptKeys[]): Promise<KeptKeys[]> {
    const kept: KeptKeys[] = [];
    for (const { indices, width } of chunks) {
      kept.push({ indices: indices instanceof Int32Array ? await this.keep(indices) : indices, width });
    }
    return kept;
  }

  /** @param elements how many are wanted at least, where not all */
  async hidden(kept: Float32Array | Region, elements = kept.byteLength / 4): Promise<Float32Array> {
    return kept instanceof Float32Array ? kept : await this.#read(kept, new Float32Array(elements));
  }

  async keys(chunks: readonly KeptKeys[]): Promise<SelectedKeys[]> {
    const keys: SelectedKeys[] = [];
    for (const { indices: kept, width } of chunks) {
      const indices = kept instanceof Int32Array ? kept : await this.#read(kept, new Int32Array(kept.byteLength / 4));
      keys.push({ indices, width });
    }
    return keys;
  }

  /** Frees what was written and is no part of any states now, an interrupted run's work as well. */
  sweep(inUse: ReadonlySet<Sized>): void {
    for (const region of this.#written) {
      if (inUse.has(region)) continue;
      this.#written.delete(region);
      this.#file.free(region);
    }
  }

  #read<A extends ArrayBufferView>(region: Region, into: A): Promise<A> {
    return this.#file.read(region, into);
  }
}
