/** Ctrl-C: the first one asks the work to stop and save, the second one is the system's own and kills. */
import { basename } from "node:path";
import process from "node:process";
import { InterruptedError } from "../base/errors.ts";
import { quoteWord } from "../base/shell.ts";

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/**
 * Runs `work` with a signal that the first Ctrl-C aborts. The handlers are taken off then, so that a second one has
 * its default effect even while native code holds the event loop.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>, notice: string): Promise<T> {
  const controller = new AbortController();
  const stop = (): void => {
    release();
    process.stderr.write(`\n${notice}\n`);
    controller.abort(new InterruptedError("Interrupted"));
  };
  const release = (): void => {
    for (const signal of SIGNALS) process.removeListener(signal, stop);
  };
  for (const signal of SIGNALS) process.on(signal, stop);
  try {
    return await work(controller.signal);
  } finally {
    release();
  }
}

/** The command that goes on with this run: the command line as it was given, with `--resume` and without `--fresh`. */
export function resumeCommand(argv: readonly string[]): string {
  const [, script = "indexcache", ...given] = argv;
  const program = basename(script) === "indexcache" ? ["indexcache"] : ["node", script];
  const kept = withoutJournalMode(given);
  return [...program, ...kept, "--resume"].map(quoteWord).join(" ");
}

/** The command line as results keep it: how the program was started does not matter there. */
export function recordedCommand(argv: readonly string[]): string {
  return ["indexcache", ...withoutJournalMode(argv.slice(2))].map(quoteWord).join(" ");
}

/** A run that goes on gives the same file as one that was never cut. */
function withoutJournalMode(words: readonly string[]): string[] {
  return words.filter((word) => word !== "--fresh" && word !== "--resume");
}
