/**
 * An IndexCache pattern: one letter a backbone layer. A Full layer (F) runs its lightning indexer; a Shared layer (S)
 * reuses the `topk_indices` of the nearest preceding Full layer of the same forward pass (paper section 3).
 */
import { InputError } from "../base/errors.ts";

declare const checked: unique symbol;

/** A string of `F` and `S` that starts with `F`; made only by the functions of this room. */
export type Pattern = string & { readonly [checked]: true };

/**
 * Checks an F/S string.
 * @param where what the string came from, for the message ("--pattern", a file and field)
 * @throws InputError for an empty string, another letter (lower case included) or a first layer that is not Full
 */
export function parsePattern(text: string, where = "pattern"): Pattern {
  if (text === "") throw new InputError(`${where} is empty: it needs one F or S for each layer`);
  for (let layer = 0; layer < text.length; layer++) {
    const letter = text[layer];
    if (letter === "F" || letter === "S") continue;
    const hint = letter === "f" || letter === "s" ? "engines take lower case for F without a word; write F and S" : "";
    throw new InputError(
      `${where} has "${letter}" at layer ${layer}: only F (Full) and S (Shared) are letters of a pattern`,
      hint === "" ? {} : { hint },
    );
  }
  if (text[0] !== "F") {
    throw new InputError(`${where} starts with S: layer 0 must be Full, there is no layer before it to share from`);
  }
  return text as Pattern;
}

/** A word that is meant as letters of a pattern, mistyped ones and lower case included: more than half are F or S. */
export function looksLikeLetters(text: string): boolean {
  return /^[A-Za-z]+$/.test(text) && (/^[FSfs]+$/.test(text) || 2 * text.replace(/[^FS]/g, "").length > text.length);
}

/** Checks that a pattern has one letter for each of the model's layers. */
export function requireLayers(pattern: Pattern, layers: number, where = "pattern"): Pattern {
  if (pattern.length !== layers) {
    throw new InputError(`${where} has ${pattern.length} letters, the model has ${layers} layers`);
  }
  return pattern;
}

/** Every layer Full: the model as it was trained. */
export function fullPattern(layers: number): Pattern {
  return parsePattern("F".repeat(layers));
}

/** Is this layer Full? */
export function isFull(pattern: Pattern, layer: number): boolean {
  return pattern[layer] === "F";
}

/** Number of Full layers in letters, of which nobody has asked yet whether they are a pattern. */
export function countFull(letters: string): number {
  return [...letters].filter((letter) => letter === "F").length;
}

/** Indices of the Full layers, ascending. */
export function fullLayers(pattern: Pattern): number[] {
  return [...pattern].flatMap((letter, layer) => (letter === "F" ? [layer] : []));
}

/** The layer whose `topk_indices` this layer reads: itself where it is Full. */
export function sourceLayer(pattern: Pattern, layer: number): number {
  return pattern.lastIndexOf("F", layer);
}

/** The pattern with one more Shared layer. */
export function withShared(pattern: Pattern, layer: number): Pattern {
  return parsePattern(`${pattern.slice(0, layer)}S${pattern.slice(layer + 1)}`);
}

/** The pattern with one more Full layer. */
export function withFull(pattern: Pattern, layer: number): Pattern {
  return parsePattern(`${pattern.slice(0, layer)}F${pattern.slice(layer + 1)}`);
}

/** The first layer at which two patterns differ, or their length where they do not. */
export function firstDifference(left: Pattern, right: Pattern): number {
  let layer = 0;
  while (layer < left.length && left[layer] === right[layer]) layer++;
  return layer;
}
