/**
 * Whole loss landscapes of small trained models, measured by `tools/landscape` and kept in `test/fixtures/landscapes`:
 * what every pattern costs on every window. A search over a landscape is a search over a real model that takes
 * milliseconds, and its optimum at every size is known.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { InputError } from "../../src/base/errors.ts";
import { sum } from "../../src/base/sum.ts";
import { parseJson } from "../../src/formats/validation.ts";
import { fullLayers, isFull, type Pattern, parsePattern, requireLayers } from "../../src/pattern/pattern.ts";

export const landscapeNames = [
  "demo",
  "l8",
  "l10",
  "l12",
  "l12-k64",
  "l12-k64-step-400",
  "l12-k64-step-800",
  "l12-k64-step-1600",
  "l14",
] as const;

export type LandscapeName = (typeof landscapeNames)[number];

/** `nll`: -log p(token | tokens before it). `kl`: KL(p of the all-F pattern || p of this one) over the vocabulary. */
export type Quantity = "nll" | "kl";

const hex = z.string().regex(/^[0-9a-f]{64}$/);

const headerSchema = z.strictObject({
  format: z.literal(1),
  layers: z.int().min(2).max(20),
  indexTopk: z.int().min(1),
  weights: hex,
  sets: z
    .array(z.strictObject({ name: z.string(), hash: hex, sequences: z.int().min(1), tokens: z.int().min(2) }))
    .min(1),
});

type Header = z.infer<typeof headerSchema>;

/** Every pattern's values on one set of windows. */
export class LandscapeSet {
  readonly name: string;
  /** What `indexcache` says of the windows. */
  readonly hash: string;
  readonly sequences: number;
  /** Of one window; it predicts one less. */
  readonly tokens: number;
  readonly #layers: number;
  /** `[patterns, sequences]`. */
  readonly #values: Record<Quantity, Float32Array>;

  constructor(header: Header["sets"][number], layers: number, values: Record<Quantity, Float32Array>) {
    this.name = header.name;
    this.hash = header.hash;
    this.sequences = header.sequences;
    this.tokens = header.tokens;
    this.#layers = layers;
    this.#values = values;
  }

  /** Nats per token of each window, `[sequences]`. */
  perSequence(pattern: Pattern, quantity: Quantity = "nll"): Float32Array {
    requireLayers(pattern, this.#layers);
    const start = patternIndex(pattern) * this.sequences;
    return this.#values[quantity].subarray(start, start + this.sequences);
  }

  /**
   * Nats per token: the mean over all windows, or over those of `sequences`. Windows are equally long.
   * @throws RangeError for a window that is not in the set, or for none
   */
  loss(pattern: Pattern, sequences?: readonly number[]): number {
    return this.#mean(this.perSequence(pattern, "nll"), sequences);
  }

  /** As `loss`, of the divergence from the all-F pattern. */
  kl(pattern: Pattern, sequences?: readonly number[]): number {
    return this.#mean(this.perSequence(pattern, "kl"), sequences);
  }

  #mean(values: Float32Array, sequences: readonly number[] = [...values.keys()]): number {
    if (sequences.length === 0) throw new RangeError("a mean needs a sequence");
    const chosen = sequences.map((sequence) => {
      const value = values[sequence];
      if (value === undefined) throw new RangeError(`"${this.name}" has ${values.length} sequences, no ${sequence}`);
      return value;
    });
    return sum(chosen) / chosen.length;
  }
}

export class Landscape {
  readonly layers: number;
  readonly indexTopk: number;
  /** SHA-256 of the checkpoint's `model.safetensors`. */
  readonly weights: string;
  readonly calibration: LandscapeSet;
  /** Text that no search has seen; some landscapes have none. */
  readonly heldOut: LandscapeSet | undefined;

  constructor(header: Header, sets: LandscapeSet[], where: string) {
    const [calibration, heldOut, ...others] = sets;
    const named = calibration?.name === "calibration" && (heldOut?.name ?? "held-out") === "held-out";
    if (calibration === undefined || !named || others.length > 0) {
      throw new InputError(`${where} has the sets ${sets.map(({ name }) => name).join(", ")}`, {
        hint: "a landscape has calibration, and held-out after it or nothing",
      });
    }
    this.layers = header.layers;
    this.indexTopk = header.indexTopk;
    this.weights = header.weights;
    this.calibration = calibration;
    this.heldOut = heldOut;
  }

  /** Nats per token on the calibration set. */
  loss(pattern: Pattern, sequences?: readonly number[]): number {
    return this.calibration.loss(pattern, sequences);
  }

  /** Every pattern of so many Full layers, all where none is given; by index, so FSS...S first. */
  patterns(full?: number): Pattern[] {
    const all = Array.from({ length: 2 ** (this.layers - 1) }, (_, index) => patternAt(index, this.layers));
    return full === undefined ? all : all.filter((pattern) => fullLayers(pattern).length === full);
  }

  /** The pattern of so many Full layers with the lowest loss on the calibration set. */
  optimum(full: number, cost: (pattern: Pattern) => number = (pattern) => this.loss(pattern)): Pattern {
    const [first, ...others] = this.patterns(full);
    if (first === undefined) throw new RangeError(`no pattern of ${this.layers} layers has ${full} Full ones`);
    let best = { pattern: first, cost: cost(first) };
    for (const pattern of others) {
      const own = cost(pattern);
      if (own < best.cost) best = { pattern, cost: own };
    }
    return best.pattern;
  }
}

/** Bit i-1 is 1 where layer i is Full, for every layer but the first, which always is. */
export function patternIndex(pattern: Pattern): number {
  let index = 0;
  for (let layer = 1; layer < pattern.length; layer++) if (isFull(pattern, layer)) index += 2 ** (layer - 1);
  return index;
}

function patternAt(index: number, layers: number): Pattern {
  const letters = Array.from({ length: layers - 1 }, (_, bit) => ((index >> bit) & 1 ? "F" : "S"));
  return parsePattern(`F${letters.join("")}`);
}

const read = new Map<LandscapeName, Landscape>();

/** A landscape of `test/fixtures/landscapes`, read once. */
export function readLandscape(name: LandscapeName): Landscape {
  const known = read.get(name);
  if (known !== undefined) return known;
  const path = fileURLToPath(new URL(`../fixtures/landscapes/${name}.landscape`, import.meta.url));
  const landscape = parseLandscape(readFileSync(path), `Landscape "${name}"`);
  read.set(name, landscape);
  return landscape;
}

/**
 * A line of JSON, then for each set `nll` and `kl`, `[patterns, sequences]` as little-endian float32.
 * @param where what the bytes came from, for the message
 * @throws InputError for another header, too few or too many bytes, and values that no measurement gives
 */
export function parseLandscape(bytes: Uint8Array, where: string): Landscape {
  const newline = bytes.indexOf(0x0a);
  if (newline === -1) throw new InputError(`${where} has no line of JSON at its start`);
  const header = parseJson(new TextDecoder().decode(bytes.subarray(0, newline)), headerSchema, where);
  const patterns = 2 ** (header.layers - 1);
  const values = header.sets.reduce((total, { sequences }) => total + 2 * patterns * sequences, 0);
  const expected = newline + 1 + 4 * values;
  if (bytes.length !== expected) {
    throw new InputError(`${where} has ${bytes.length} bytes, its header asks for ${expected}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = newline + 1;
  const take = (name: string, quantity: Quantity, sequences: number): Float32Array => {
    const array = new Float32Array(patterns * sequences);
    for (let i = 0; i < array.length; i++, at += 4) {
      const value = view.getFloat32(at, true);
      // The last pattern is all F: it diverges from itself by nothing.
      const possible =
        quantity === "kl" && i >= array.length - sequences ? value === 0 : value >= 0 && value < Infinity;
      if (!possible) {
        const pattern = patternAt(Math.floor(i / sequences), header.layers);
        throw new InputError(`${where}: ${quantity} of ${pattern} on sequence ${i % sequences} of ${name} is ${value}`);
      }
      array[i] = value;
    }
    return array;
  };
  const sets = header.sets.map((set) => {
    const nll = take(set.name, "nll", set.sequences);
    return new LandscapeSet(set, header.layers, { nll, kl: take(set.name, "kl", set.sequences) });
  });
  return new Landscape(header, sets, where);
}
