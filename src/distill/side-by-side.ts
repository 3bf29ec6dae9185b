/** Events of several sources, in the order in which they happen. */

/**
 * Where one source fails, the others end after what they are at, and the failure is thrown.
 * @param sources all of them begin at once
 */
export async function* sideBySide<Event>(sources: readonly AsyncGenerator<Event>[]): AsyncGenerator<Event> {
  const next = async (source: AsyncGenerator<Event>) => ({ source, result: await source.next() });
  const pending = new Map(sources.map((source) => [source, next(source)]));
  try {
    while (pending.size > 0) {
      const { source, result } = await Promise.race(pending.values());
      if (result.done === true) pending.delete(source);
      else {
        yield result.value;
        pending.set(source, next(source));
      }
    }
  } finally {
    await Promise.allSettled(pending.values());
    await Promise.allSettled(sources.map((source) => source.return(undefined)));
  }
}
