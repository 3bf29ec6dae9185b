/**
 * Sequences that earlier requests have left, for requests that begin alike. Only whole chunks are kept and reused, so that
 * a request gets the same bits with the cache and without it. Of a sequence whose prompt was scored, the scores stay as
 * well: four answers after one long context run the context once, even where its log-probabilities are asked for.
 */
import { commonPrefix } from "../base/common-prefix.ts";
import { sum } from "../base/sum.ts";
import type { DsaConfig } from "../checkpoint/config/model-config.ts";
import type { Pattern } from "../pattern/pattern.ts";
import { chunksOf } from "../runtime/stages/chunks.ts";
import type { StagedSequence } from "../runtime/stages/staged-sequence.ts";
import type { RowScore } from "./row-score.ts";

/** Scores of a prompt's tokens; `rows[i]` is the score of the token at position `from + i + 1`. */
export interface PromptScores {
  /** Position of the first row that was read. */
  from: number;
  /** Most likely tokens in each. */
  top: number;
  rows: RowScore[];
}

export interface KeptSequence {
  /** Tokens whose rows the sequence holds and, where there was one, the token after them: the last row's score is of it. */
  ids: readonly number[];
  sequence: StagedSequence;
  scores: PromptScores | undefined;
}

/** Rows whose scores a request needs, and how many most likely tokens in each. */
export interface NeededScores {
  from: number;
  top: number;
}

/** Bytes of one row's score and of one token in it, about. */
const scoreBytes = { row: 96, token: 48 };

export class PrefixCache {
  readonly #config: DsaConfig;
  readonly #limit: number;
  /** The one used last at the end. */
  #kept: KeptSequence[] = [];

  /** @param limit bytes; 0 keeps nothing */
  constructor(config: DsaConfig, limit: number) {
    this.#config = config;
    this.#limit = limit;
  }

  get bytes(): number {
    return sum(this.#kept.map(bytesOf));
  }

  get size(): number {
    return this.#kept.length;
  }

  clear(): void {
    this.#kept = [];
  }

  /**
   * A sequence with the longest usable prefix of `ids`, for the caller to append to. It leaves the cache where all of it is
   * used, otherwise its first rows are copied.
   * @param capacity rows that will be needed
   */
  take(
    pattern: Pattern,
    ids: readonly number[],
    needed: NeededScores | undefined,
    capacity: number,
  ): KeptSequence | undefined {
    let best: { kept: KeptSequence; length: number; common: number } | undefined;
    for (const kept of this.#kept) {
      if (kept.sequence.pattern !== pattern) continue;
      const common = commonPrefix([kept.ids, ids]);
      const length = usableLength(this.#config, kept, common, ids.length, needed);
      if (length > (best?.length ?? 0)) best = { kept, length, common };
    }
    if (best === undefined) return undefined;
    const { kept, length, common } = best;
    const whole = length === kept.sequence.length;
    this.#kept = this.#kept.filter((other) => other !== kept);
    if (!whole) this.#kept.push(kept);
    // A score is of the token after its row, which has to be a common one as well.
    const rows = kept.scores?.rows.slice(0, Math.max(0, Math.min(length, common - 1) - kept.scores.from));
    return {
      ids: kept.ids.slice(0, Math.min(length + 1, common)),
      sequence: whole ? kept.sequence : kept.sequence.copy(length, capacity),
      scores: kept.scores && rows && { ...kept.scores, rows },
    };
  }

  /**
   * Keeps the whole chunks of a prompt that has run.
   * @param promptRows how many of the sequence's rows are the prompt's
   */
  put(ids: readonly number[], promptRows: number, sequence: StagedSequence, scores: PromptScores | undefined): void {
    const length = wholeChunks(this.#config, promptRows);
    if (this.#limit === 0 || length === 0) return;
    sequence.rewind(length);
    const known = ids.slice(0, length + 1);
    const rows = scores?.rows.slice(0, Math.max(0, known.length - 1 - scores.from));
    const kept: KeptSequence = { ids: known, sequence, scores: scores && rows && { ...scores, rows } };
    this.#kept = [...this.#kept.filter((other) => !covers(kept, other)), kept];
    while (this.#kept.length > 0 && this.bytes > this.#limit) this.#kept.shift();
  }
}

/** Rows of whole chunks among the first `length`. */
function wholeChunks(config: DsaConfig, length: number): number {
  // A sequence that is longer by one chunk is cut alike: its last chunk but one is the last that is whole.
  const ends = chunksOf(config, 0, length + config.indexTopk + 256).map(({ end }) => end);
  return ends.findLast((end) => end <= length) ?? 0;
}

/** How many rows of a kept sequence a request can use. */
function usableLength(
  config: DsaConfig,
  { sequence, scores }: KeptSequence,
  common: number,
  promptLength: number,
  needed: NeededScores | undefined,
): number {
  // The request's last row runs in any case: its logits are wanted.
  const rows = Math.min(common, sequence.length, promptLength - 1);
  const length = wholeChunks(config, rows);
  if (needed === undefined || needed.from >= length) return length;
  if (scores === undefined || scores.from > needed.from || scores.top < needed.top) {
    return wholeChunks(config, Math.min(rows, needed.from));
  }
  return wholeChunks(config, Math.min(rows, common - 1, scores.from + scores.rows.length));
}

/** Is whatever `other` is good for also served by `kept`? */
function covers(kept: KeptSequence, other: KeptSequence): boolean {
  if (kept.sequence.pattern !== other.sequence.pattern || other.ids.length > kept.ids.length) return false;
  if (other.ids.some((id, index) => id !== kept.ids[index])) return false;
  if (other.scores === undefined) return true;
  const { scores } = kept;
  return scores !== undefined && scores.from <= other.scores.from && scores.top >= other.scores.top;
}

function bytesOf({ ids, sequence, scores }: KeptSequence): number {
  const ofScores = (scores?.rows.length ?? 0) * (scoreBytes.row + scoreBytes.token * (scores?.top ?? 0));
  return sequence.bytes + ofScores + 8 * ids.length;
}
