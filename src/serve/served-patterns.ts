/** Which patterns requests may name, and which they get when they name none. */
import { IndexCacheError, UsageError } from "../base/errors.ts";
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import { resolvePattern } from "../pattern/schedule.ts";
import { ApiError } from "./api-error.ts";

/** A pattern under the name that follows the model's: `demo@1/4`. */
export interface ServedPattern {
  name: string;
  pattern: Pattern;
}

export interface ServedPatternsSettings {
  /** What `/v1/models` calls the model. */
  model: string;
  /** F where the model has an indexer. */
  indexers: Pattern;
  /** The pattern of requests that name none. */
  pattern: Pattern;
  /** Other patterns that have a name. */
  named: readonly ServedPattern[];
  /** The pattern of a size such as `1/4`; throws a known error where there is none. */
  ofSize?: (retain: string) => Pattern;
}

/** Characters of a name that an error message repeats. */
const quoted = 80;

export class ServedPatterns {
  readonly model: string;
  readonly indexers: Pattern;
  readonly named: readonly ServedPattern[];
  /** The pattern of requests that name none; a switch of `--dev` changes it. */
  current: Pattern;
  readonly #ofSize: ((retain: string) => Pattern) | undefined;

  constructor({ model, indexers, pattern, named, ofSize }: ServedPatternsSettings) {
    this.model = model;
    this.indexers = indexers;
    this.named = named;
    this.current = pattern;
    this.#ofSize = ofSize;
  }

  /**
   * The pattern of a request.
   * @param model what the request calls the model: its name, or with `@` and a pattern
   * @param asked the request's own field `pattern`
   * @throws ApiError 404 for another model, 400 for what is no pattern of this one
   */
  of(model: string | undefined, asked: string | undefined): Pattern {
    const named = model === undefined ? undefined : this.#afterModel(model);
    if (asked !== undefined && named !== undefined && this.resolve(asked) !== this.resolve(named)) {
      throw new ApiError(400, `"model" and "pattern" name different patterns: ${quote(named)} and ${quote(asked)}`);
    }
    const text = asked ?? named;
    return text === undefined ? this.current : this.resolve(text);
  }

  /** A name of this server, letters, or a schedule; never a file. */
  resolve(text: string): Pattern {
    const found = this.named.find(({ name }) => name === text);
    if (found !== undefined) return found.pattern;
    const layers = this.indexers.length;
    try {
      if (/^(full|(uniform|freq):.*|[FSfs]+)$/.test(text)) {
        return resolvePattern(text, { layers, indexers: this.indexers }, "The pattern");
      }
      if (this.#ofSize !== undefined && /^[\d./]+$/.test(text)) return this.#ofSize(text);
    } catch (error) {
      if (!(error instanceof IndexCacheError)) throw error;
      const { message, hint } = error;
      // A size that no model of these layers has: the names below say more than the option's own message.
      if (!(error instanceof UsageError)) {
        throw new ApiError(400, hint === undefined ? message : `${message} (${hint})`, "pattern");
      }
    }
    const names = this.named.map(({ name }) => name).join(", ");
    throw new ApiError(
      400,
      `The server has no pattern ${quote(text)}: it takes letters (one F or S for each of ${layers} layers), full, uniform:N, freq:N${names === "" ? "" : `, or ${names}`}`,
      "pattern",
    );
  }

  /** Names for `/v1/models`, the model alone first. */
  get listed(): { id: string; pattern: Pattern }[] {
    const own = { id: this.model, pattern: this.current };
    return [own, ...this.named.map(({ name, pattern }) => ({ id: `${this.model}@${name}`, pattern }))];
  }

  /** The letters with `-` for layers without an indexer, as the engines' kit writes them. */
  get letters(): string {
    return [...this.current].map((letter, layer) => (this.indexers[layer] === "F" ? letter : "-")).join("");
  }

  #afterModel(text: string): string | undefined {
    if (text === this.model) return undefined;
    if (text.startsWith(`${this.model}@`)) return text.slice(this.model.length + 1);
    throw new ApiError(404, `The model ${quote(text)} does not exist: this server has "${this.model}"`, "model");
  }
}

/** Full layers of a pattern beside all indexers, for people: `3/12`. */
export function retained(pattern: Pattern, indexers: Pattern): string {
  return `${fullLayers(pattern).length}/${fullLayers(indexers).length}`;
}

function quote(text: string): string {
  return JSON.stringify(text.length > quoted ? `${text.slice(0, quoted)}...` : text);
}
