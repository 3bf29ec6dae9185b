/**
 * One server of a run that goes from pattern to pattern. Whatever is asked of it under a pattern counts only once every rank has
 * read that pattern back before and after, and the same process has answered all the time.
 */
import { RuntimeFailure } from "../base/errors.ts";
import type { Pattern } from "../pattern/pattern.ts";
import type { EngineAdapter, EngineDescription, PatternState } from "./engine-adapter.ts";
import { numbersOf, type Replica, serverLetters } from "./live-model.ts";
import { ServerRestarted } from "./server-error.ts";

/** Restarts of the server that work under one pattern may meet. */
const mostRestarts = 5;

export class SwitchedServer {
  /** It answers no more, and others have taken its work. */
  lost = false;
  readonly #replica: Replica;
  readonly #note: (words: string) => void;

  /** @param note hears of restarts */
  constructor(replica: Replica, note: (words: string) => void) {
    this.#replica = replica;
    this.#note = note;
  }

  get adapter(): EngineAdapter {
    return this.#replica.adapter;
  }

  get description(): EngineDescription {
    return this.#replica.description;
  }

  /**
   * Does the work under a pattern; all of it once more where the server was started anew in between.
   * @throws LostServer where it does not answer
   * @throws RuntimeFailure where somebody else switches patterns there, or it came back with other settings
   */
  async under<T>(pattern: Pattern, work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    for (let restarts = 0; ; restarts++) {
      try {
        return await this.#once(pattern, work, signal);
      } catch (error) {
        if (!(error instanceof ServerRestarted) || restarts >= mostRestarts) throw error;
        this.#note(`${error.message}; the pattern is set and measured again`);
        await this.#begin(signal);
      }
    }
  }

  /** @throws ServerRestarted where the server is not the one that was switched */
  async #once<T>(pattern: Pattern, work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const { adapter, description } = this.#replica;
    const letters = serverLetters(pattern, description);
    const { bootId } = description.state;
    const check = (state: PatternState, when: string): void => {
      if (state.bootId !== bootId) throw new ServerRestarted(`${adapter.url} was restarted`);
      if (state.letters === letters) return;
      throw new RuntimeFailure(`${adapter.url} runs ${state.letters} ${when}, ${letters} was set`, {
        hint: "somebody else switches patterns there",
      });
    };
    check(await adapter.set(letters, signal), "after the switch");
    const result = await work();
    check(await adapter.state(signal), "after the measurement");
    return result;
  }

  /** After a restart: the same model with the same settings, or nothing. */
  async #begin(signal: AbortSignal | undefined): Promise<void> {
    const { adapter, description: before } = this.#replica;
    const restarted = await adapter.describe(signal);
    await adapter.prepare(signal);
    const after = { ...(await adapter.describe(signal)), state: before.state };
    const [old, now] = [numbersOf(before), numbersOf(after)].map((numbers) => JSON.stringify(numbers));
    if (old !== now || restarted.layers !== before.layers || after.obstacles.length > 0) {
      throw new RuntimeFailure(
        `${adapter.url} was started anew with other settings: ${now} against ${old}${after.obstacles.map((words) => `; ${words}`).join("")}`,
        { hint: "start it as it was, and continue with --resume" },
      );
    }
    this.#replica.description = { ...after, state: { ...before.state, bootId: restarted.state.bootId } };
  }
}

/** At most `concurrency` at a time, begun in their order; the first failure ends all. */
export async function inTurn<T, R>(
  items: readonly T[],
  concurrency: number,
  signal: AbortSignal | undefined,
  work: (item: T, signal: AbortSignal) => Promise<R>,
): Promise<R[]> {
  const failed = new AbortController();
  const within = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  const results: R[] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < items.length && !within.aborted) {
      const at = next++;
      try {
        results[at] = await work(items[at] as T, within);
      } catch (error) {
        failed.abort(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, items.length) }, lane));
  signal?.throwIfAborted();
  failed.signal.throwIfAborted();
  return results;
}
