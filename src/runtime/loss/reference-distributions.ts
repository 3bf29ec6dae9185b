/** What the KL objective keeps of the model's own next-token distributions: in memory up to a limit, then in a file. */
import { type Region, TemporaryFile } from "./temporary-file.ts";

export class ReferenceDistributions {
  readonly #limit: number;
  readonly #file = new TemporaryFile();
  /** By the window, or by the name of a batch of them. */
  readonly #rows = new Map<number | string, Float32Array | Region>();
  #memoryBytes = 0;

  /** @param limit bytes of memory */
  constructor(limit: number) {
    this.#limit = limit;
  }

  has(place: number | string): boolean {
    return this.#rows.has(place);
  }

  /** @throws RuntimeFailure where the temporary file cannot be written */
  async set(place: number | string, rows: Float32Array): Promise<void> {
    this.delete(place);
    const fits = this.#memoryBytes + rows.byteLength <= this.#limit;
    if (fits) this.#memoryBytes += rows.byteLength;
    this.#rows.set(place, fits ? rows : await this.#file.write(rows));
  }

  async get(place: number | string): Promise<Float32Array | undefined> {
    const kept = this.#rows.get(place);
    if (kept === undefined || kept instanceof Float32Array) return kept;
    return await this.#file.read(kept, new Float32Array(kept.byteLength / Float32Array.BYTES_PER_ELEMENT));
  }

  delete(place: number | string): void {
    const kept = this.#rows.get(place);
    if (kept instanceof Float32Array) this.#memoryBytes -= kept.byteLength;
    else if (kept !== undefined) this.#file.free(kept);
    this.#rows.delete(place);
  }

  clear(): void {
    for (const place of [...this.#rows.keys()]) this.delete(place);
  }

  async release(): Promise<void> {
    this.clear();
    await this.#file.release();
  }
}
