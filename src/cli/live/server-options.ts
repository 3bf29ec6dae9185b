/** Options of the commands that work on a running engine, and the server and model that they name. */
import type { Command } from "commander";
import { UsageError } from "../../base/errors.ts";
import { findModel } from "../../checkpoint/hub-cache.ts";
import { describeModel, type ModelDescription } from "../../graph/model-folder.ts";
import { LiveModel } from "../../live/live-model.ts";
import { parseServers } from "../../live/server-address.ts";
import { ServerLosses, type ServerLossSettings } from "../../live/server-losses.ts";
import { type Flags, group, option } from "../arguments/declared-option.ts";
import { givenOptions } from "../arguments/given-options.ts";
import { lossPlaceOptions } from "../arguments/memory.ts";
import { modelOptions } from "../arguments/opening.ts";
import { numberUpTo, positiveNumber } from "../arguments/options.ts";
import { profileOptions } from "../arguments/profile.ts";
import type { Terminal } from "../console/terminal.ts";
import { describeServer } from "./server-words.ts";

export function connectionOptions() {
  return [
    option("--api-key <key>", "the server's key").env("INDEXCACHE_API_KEY"),
    option("--allow-remote", "a server may be on another host than this one"),
    option("--timeout <seconds>", "what one request to a server may take", positiveNumber, 600),
  ] as const;
}

export type ConnectionFlags = Flags<ReturnType<typeof connectionOptions>>;

/** The heading of options that go with `--server`. */
export const serverHeading = "A running engine instead of weights:";

export const serverOptions = group(
  serverHeading,
  option(
    "--server <url>",
    "let a running vLLM or SGLang with the kit compute (docs/serving.md); replicas with commas between",
  ),
  option("-m, --model <folder>", "with --server: config.json and the tokenizer of its model; no weights are needed"),
  option("--concurrency <n>", "with --server: requests under way at a time, on each", numberUpTo(1024), 8),
  ...connectionOptions(),
);

export type ServerFlags = Flags<typeof serverOptions>;

/** Pauses between tries in a command that waits for nobody, in milliseconds. */
const shortPauses = [500, 1000, 2000] as const;
/** Pauses in a long run on one server: large models take minutes to load after a restart. */
const patientPauses = [500, 1000, 2000, 4000, 8000, 16_000, ...Array<number>(30).fill(30_000)];
/** Where others can take over. */
const replicaPauses = [500, 1000, 2000, 4000, 8000, 16_000] as const;

/** Options that mean something with `--server` alone, by the names of their values; and those of this tool's own runtime. */
const serverOnly = new Set(["concurrency", "repeats", "allowRemote", "timeout"]);
const localOnly = new Set(
  [...modelOptions, ...lossPlaceOptions, ...profileOptions].map((declared) => declared.attributeName()),
);

/** @throws UsageError for options that have no meaning where a server computes, and for server options without one */
function requireServerOptions(command: Command, { server }: ServerFlags): void {
  const foreign = server === undefined ? serverOnly : localOnly;
  const stray = givenOptions(command).find(({ attribute }) => foreign.has(attribute));
  if (stray === undefined) return;
  if (server === undefined) throw new UsageError(`${stray.written} needs --server`);
  throw new UsageError(`${stray.written} does not go with --server: the server decides that`, {
    hint: "it was said when the server was started",
  });
}

/**
 * The folder of the model of a command that may work on a server: the argument, or `-m`.
 * @throws UsageError for options that do not go together
 */
export function modelPath(command: Command, argument: string | undefined, flags: ServerFlags): string | undefined {
  requireServerOptions(command, flags);
  const { model } = flags;
  if (argument !== undefined && model !== undefined && argument !== model) {
    throw new UsageError("The model is named twice: as an argument and as -m");
  }
  return argument ?? model;
}

/** The folder that tokens come from. */
export async function openServedFolder(path: string | undefined, terminal: Terminal): Promise<ModelDescription> {
  if (path === undefined) {
    throw new UsageError("-m is missing: --server needs the folder with config.json and the tokenizer of its model", {
      hint: "the same folder that the server was started with, or a copy of it without the weights",
    });
  }
  const model = await describeModel(await findModel(path));
  for (const note of model.notes) terminal.warn(note);
  return model;
}

/** Connects to `--server`, looks whether it is this model and can be switched, and says what it is. */
export async function openServers(
  flags: ServerFlags & { server: string },
  model: ModelDescription,
  terminal: Terminal,
): Promise<LiveModel> {
  const urls = parseServers(flags.server, flags.allowRemote === true);
  const served = await connect(urls, flags, urls.length > 1 ? replicaPauses : patientPauses, terminal);
  try {
    served.requireShape(model.config);
    await served.requireSwitchable(terminal.signal);
    for (const { adapter, description } of served.replicas) terminal.note(describeServer(adapter.url, description));
    return served;
  } catch (error) {
    await served.release();
    throw error;
  }
}

/** For a look at a server: no long waiting. */
export function openForALook(url: string, flags: ConnectionFlags, terminal: Terminal): Promise<LiveModel> {
  return connect(parseServers(url, flags.allowRemote === true), flags, shortPauses, terminal);
}

/** @param pauses between tries; retries and restarts are told of, all along */
function connect(
  urls: ReturnType<typeof parseServers>,
  { apiKey, timeout }: ConnectionFlags,
  pauses: readonly number[],
  terminal: Terminal,
): Promise<LiveModel> {
  const note = (words: string): void => terminal.warn(words);
  return LiveModel.open(urls, { apiKey, timeout: timeout * 1000, pauses, onRetry: note, note }, terminal.signal);
}

interface Scored {
  windows: readonly Int32Array[];
  /** Where it is not every token from `index_topk` on. */
  scoredFrom?: readonly number[];
}

/** The evaluator of these sequences on the servers. */
export function lossesOn(
  served: LiveModel,
  { windows, scoredFrom = [] }: Scored,
  settings: Omit<ServerLossSettings, "scoredFrom" | "note">,
  terminal: Terminal,
): ServerLosses {
  const note = (words: string): void => terminal.warn(words);
  return new ServerLosses(served, windows, { ...settings, scoredFrom, note });
}
