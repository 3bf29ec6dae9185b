/**
 * Patterns by name: the fixed schedules that papers and serving engines use, and every indexer that the model has.
 * Two readings of "every fourth layer" are in use and differ in every position after the first, so both have a name:
 * the paper's text says FSSSFSSS (`uniform:4`), the engines' `index_topk_freq` says FFSSSFSSS (`freq:4`).
 */
import { InputError, UsageError } from "../base/errors.ts";
import { fullLayers, fullPattern, type Pattern, parsePattern, requireLayers } from "./pattern.ts";

/** What vLLM, SGLang and transformers take for `index_skip_topk_offset` where a config does not give it. */
export const DEFAULT_FREQUENCY_OFFSET = 2;

export interface PatternContext {
  /** Backbone layers of the model; prediction layers (MTP) are not counted. */
  layers: number;
  /** `index_skip_topk_offset` of `freq:N`. */
  offset?: number;
  /** F where the model owns an indexer (GLM-5.2 has none on its Shared layers); all layers if absent. */
  indexers?: Pattern;
}

/** Layer i is Full iff i mod `every` is 0: FSSSFSSS for 4. */
export function uniformPattern(layers: number, every: number): Pattern {
  return parsePattern(letters(layers, (layer) => layer % every === 0));
}

/**
 * `full` Full layers without a search: `uniform:N` where one has as many, otherwise at distances as even as they can be.
 * @param indexers F where the model owns an indexer
 */
export function evenPattern(full: number, indexers: Pattern): Pattern {
  const layers = indexers.length;
  const owners = fullLayers(indexers);
  for (let every = 1; every <= layers; every++) {
    const pattern = uniformPattern(layers, every);
    const kept = fullLayers(pattern);
    if (kept.length === full && kept.every((layer) => owners.includes(layer))) return pattern;
  }
  const kept = new Set(Array.from({ length: full }, (_, i) => owners[Math.floor((i * owners.length) / full)]));
  return parsePattern(letters(layers, (layer) => kept.has(layer)));
}

/** The engines' rule: layer i is Full iff max(i - offset + 1, 0) mod `frequency` is 0; FFSSSFSSS for 4 and offset 2. */
export function frequencyPattern(layers: number, frequency: number, offset = DEFAULT_FREQUENCY_OFFSET): Pattern {
  if (frequency > 1 && offset < 1) {
    throw new UsageError(`An offset of ${offset} makes layer 0 Shared: it must be 1 or more`);
  }
  return parsePattern(letters(layers, (layer) => Math.max(layer - offset + 1, 0) % frequency === 0));
}

/**
 * The pattern that a user's text stands for: an F/S string, `full`, `uniform:N` or `freq:N`.
 * @param where what the text came from, for messages
 * @throws InputError if it is none of these, or does not fit the model
 */
export function resolvePattern(text: string, context: PatternContext, where = "pattern"): Pattern {
  const indexers = context.indexers ?? fullPattern(context.layers);
  if (text === "full") return indexers;
  const pattern = namedPattern(text, context, where) ?? parsePattern(text, where);
  return requireIndexers(requireLayers(pattern, context.layers, where), indexers, where);
}

/** Does the text have the form of a pattern (right or wrong), so that it is not the path of a pattern file? */
export function looksLikePattern(text: string): boolean {
  return text === "full" || /^(uniform|freq):/.test(text) || /^[FS]+$/.test(text);
}

/** Refuses a pattern that asks for an indexer which the model does not have. */
function requireIndexers(pattern: Pattern, indexers: Pattern, where = "pattern"): Pattern {
  for (let layer = 0; layer < pattern.length; layer++) {
    if (pattern[layer] === "F" && indexers[layer] === "S") {
      throw new InputError(`${where} has F at layer ${layer}, which is Shared in the model itself (config.json)`, {
        hint: `the model's own pattern is ${indexers}; only its F layers can be F`,
      });
    }
  }
  return pattern;
}

function namedPattern(text: string, context: PatternContext, where: string): Pattern | undefined {
  const match = /^(uniform|freq):(.*)$/.exec(text);
  if (match === null) return undefined;
  const every = Number(match[2]);
  if (!/^\d+$/.test(match[2] ?? "") || !Number.isSafeInteger(every) || every < 1) {
    throw new InputError(`${where} is "${text}": after the colon comes a whole number from 1 up, as in ${match[1]}:4`);
  }
  requireDistance(every, context.layers, `${where} "${text}"`);
  return match[1] === "uniform"
    ? uniformPattern(context.layers, every)
    : frequencyPattern(context.layers, every, context.offset);
}

/** Refuses every 99th of 12 layers: it would be the first layer alone, which nobody means by it. */
export function requireDistance(every: number, layers: number, where: string): void {
  if (every <= layers) return;
  throw new InputError(`${where} asks for every ${every}th layer, and there are only ${layers}`, {
    hint: `a number up to ${layers} has a meaning`,
  });
}

function letters(layers: number, isFull: (layer: number) => boolean): string {
  return Array.from({ length: layers }, (_, layer) => (isFull(layer) ? "F" : "S")).join("");
}
