/**
 * Ctrl-C and SIGTERM: the first signal asks the work to stop and save. A second one is the system's own and kills;
 * after SIGTERM nobody has to send it.
 */
import { basename, delimiter, dirname, isAbsolute, relative } from "node:path";
import process from "node:process";
import { ExitCode, InterruptedError } from "../../base/errors.ts";
import { quoteWord } from "../../base/shell.ts";

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Who sends SIGTERM (a scheduler, `timeout`, a shutdown) kills soon after: this long the work may take to stop. */
const TERMINATION_MS = 4000;

/**
 * Runs `work` with a signal that the first Ctrl-C aborts. The handlers are taken off then, so that a second one has
 * its default effect even while native code holds the event loop.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>, notice: string): Promise<T> {
  const controller = new AbortController();
  let deadline: NodeJS.Timeout | undefined;
  const stop = (signal: NodeJS.Signals): void => {
    // Not before every listener has heard this signal: libraries that restore the terminal (ink's) raise it again if they
    // find that nobody else listens.
    process.nextTick(release);
    // Views end here, so that what is said next stands below them.
    controller.abort(new InterruptedError("Interrupted"));
    process.stderr.write(`\n${notice}\n`);
    if (signal === "SIGTERM") deadline = setTimeout(endNow, TERMINATION_MS);
  };
  const release = (): void => {
    for (const signal of SIGNALS) process.removeListener(signal, stop);
  };
  for (const signal of SIGNALS) process.on(signal, stop);
  try {
    return await work(controller.signal);
  } finally {
    clearTimeout(deadline);
    release();
  }
}

/** Journals are written before anything goes on: what is lost is the evaluation at hand. */
function endNow(): void {
  process.stderr.write("Ended in the middle of the work at hand; what was finished is saved\n");
  process.exit(ExitCode.interrupted);
}

/** Words for options that no word of the command line gave, and the command that they belong to. */
let settings: { command: readonly string[]; words: readonly string[] } = { command: [], words: [] };

/** Commands that are shown or recorded from here on say what a config file or the environment has set. */
export function recordSettings(command: readonly string[], words: readonly string[]): void {
  settings = { command, words };
}

/** The command line with the settings right after the command's name: an option at the end might take more words. */
function withSettings(words: readonly string[]): string[] {
  const { command, words: added } = settings;
  if (added.length === 0) return [...words];
  const start = words.indexOf(command[0] ?? "");
  const after = start < 0 ? words.length : start + command.length;
  return [...words.slice(0, after), ...added, ...words.slice(after)];
}

/** The command that goes on with this run: the command line as it was given, with `--resume` and without `--fresh`. */
export function resumeCommand(argv: readonly string[]): string {
  return [...programWords(argv), ...withSettings(withoutJournalMode(argv.slice(2))), "--resume"]
    .map(quoteWord)
    .join(" ");
}

/** An interruption, with what of its work is kept in a journal or folder and how to go on; other errors as they are. */
export function withResume(error: unknown, what: string, place: string | undefined): unknown {
  if (!(error instanceof InterruptedError) || place === undefined) return error;
  return new InterruptedError(`Interrupted; ${what} is in "${place}"`, {
    hint: `continue with: ${resumeCommand(process.argv)}`,
    cause: error,
  });
}

/**
 * How to start this program again, for commands that a message proposes.
 * @param env npm and npx set `npm_command`, and put node_modules/.bin on the PATH of what they start
 */
export function programWords(
  [, script = "indexcache"]: readonly string[],
  env: Readonly<Record<string, string | undefined>> = process.env,
  folder = process.cwd(),
): string[] {
  const installed = /^(.*)[\\/]node_modules[\\/]\.bin$/.exec(dirname(script));
  if (installed !== null) {
    if (env.npm_command !== undefined) return ["npx", "indexcache"];
    if (env.PATH?.split(delimiter).includes(dirname(script))) return ["indexcache"];
    // Elsewhere npx would ask the registry.
    return isWithin(folder, installed[1] || "/") ? ["npx", "indexcache"] : [script];
  }
  if (basename(script) === "indexcache") return ["indexcache"];
  // Node has made it absolute; below the folder at hand the short path says the same.
  return ["node", isWithin(script, folder) ? relative(folder, script) : script];
}

function isWithin(path: string, folder: string): boolean {
  const rest = relative(folder, path);
  return !isAbsolute(rest) && !/^\.\.($|[\\/])/.test(rest);
}

/** The command line as results keep it: how the program was started does not matter there, and a key is nobody's business. */
export function recordedCommand(argv: readonly string[]): string {
  const words = argv.slice(2).flatMap((word, at, all) => {
    const isKey = word === "--api-key" || word.startsWith("--api-key=") || all[at - 1] === "--api-key";
    return isKey ? [] : [word];
  });
  return ["indexcache", ...withSettings(withoutJournalMode(words))].map(quoteWord).join(" ");
}

/** A run that continues writes the same file as one that was never interrupted. */
function withoutJournalMode(words: readonly string[]): string[] {
  return words.filter((word) => word !== "--fresh" && word !== "--resume");
}
