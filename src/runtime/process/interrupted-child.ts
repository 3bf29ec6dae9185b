/** A child in the middle of its work cannot be asked to stop; its parent need not wait for it. */
import { InterruptedError } from "../../base/errors.ts";

/**
 * Does the work, or stops waiting for it at the signal.
 * @throws InterruptedError once the signal has come; the work is not begun where that was before
 */
export async function orInterrupted<T>(work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal?.aborted) throw new InterruptedError("Interrupted");
  let stop = (): void => undefined;
  const interrupted = new Promise<never>((_, reject) => {
    stop = () => reject(new InterruptedError("Interrupted"));
  });
  signal?.addEventListener("abort", stop);
  try {
    return await Promise.race([work(), interrupted]);
  } finally {
    // A search asks hundreds of times with one signal.
    signal?.removeEventListener("abort", stop);
  }
}
