/** Options of the commands that work on a running engine, and the server and model that they name. */
import { type Command, Option } from "commander";
import { UsageError } from "../../base/errors.ts";
import { findModel } from "../../checkpoint/hub-cache.ts";
import { describeModel, type ModelDescription } from "../../graph/model-folder.ts";
import { LiveModel } from "../../live/live-model.ts";
import { parseServers } from "../../live/server-address.ts";
import { numberUpTo, positiveNumber } from "../arguments/options.ts";
import type { Terminal } from "../console/terminal.ts";

export interface ConnectionFlags {
  apiKey?: string;
  allowRemote?: boolean;
  timeout: number;
}

export interface ServerFlags extends ConnectionFlags {
  server?: string;
  model?: string;
  concurrency: number;
}

/** Pauses between tries in a command that waits for nobody, in milliseconds. */
const shortPauses = [500, 1000, 2000] as const;
/** Pauses in a long run on one server: large models take minutes to load after a restart. */
const patientPauses = [500, 1000, 2000, 4000, 8000, 16_000, ...Array<number>(30).fill(30_000)];
/** Where others can take over. */
const replicaPauses = [500, 1000, 2000, 4000, 8000, 16_000] as const;

/** Options of this tool's own runtime, by the names of their values. */
const localOptions: Readonly<Record<string, string>> = {
  device: "--device",
  devices: "--devices",
  threads: "--threads",
  workers: "--workers",
  dtype: "--dtype",
  memory: "--memory",
  profile: "--profile",
  verify: "--no-verify",
};

export function addServerOptions(command: Command): Command {
  command
    .optionsGroup("A running engine instead of weights:")
    .option(
      "--server <url>",
      "let a running vLLM or SGLang with the kit compute (docs/serving.md); replicas with commas between",
    )
    .option("-m, --model <folder>", "with --server: config.json and the tokenizer of its model; no weights are needed")
    .option("--concurrency <n>", "with --server: requests under way at a time, on each", numberUpTo(1024), 8);
  return addConnectionOptions(command);
}

export function addConnectionOptions(command: Command): Command {
  return command
    .addOption(new Option("--api-key <key>", "the server's key").env("INDEXCACHE_API_KEY"))
    .option("--allow-remote", "a server may be on another host than this one")
    .option("--timeout <seconds>", "what one request to a server may take", positiveNumber, 600);
}

/** @throws UsageError for options that have no meaning where a server computes, and for server options without one */
function requireServerOptions(command: Command, { server }: ServerFlags): void {
  const given = (name: string): boolean => command.getOptionValueSource(name) === "cli";
  if (server === undefined) {
    const alone = ["concurrency", "repeats", "allowRemote", "timeout"].find(given);
    if (alone === undefined) return;
    throw new UsageError(`--${alone.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)} needs --server`);
  }
  const local = Object.keys(localOptions).find(given);
  if (local === undefined) return;
  throw new UsageError(`${localOptions[local]} does not go with --server: the server decides that`, {
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

/**
 * Connects to `--server`, and looks whether it is this model and can be switched.
 * @param note hears of retries and restarts, all along
 */
export async function openServers(
  flags: ServerFlags & { server: string },
  model: ModelDescription,
  note: (words: string) => void,
  signal: AbortSignal,
): Promise<LiveModel> {
  const urls = parseServers(flags.server, flags.allowRemote === true);
  const served = await LiveModel.open(
    urls,
    {
      apiKey: flags.apiKey,
      timeout: flags.timeout * 1000,
      pauses: urls.length > 1 ? replicaPauses : patientPauses,
      onRetry: note,
      note,
    },
    signal,
  );
  try {
    served.requireShape(model.config);
    await served.requireSwitchable(signal);
    return served;
  } catch (error) {
    await served.release();
    throw error;
  }
}

/** For a look at a server: no long waiting. */
export async function openForALook(
  url: string,
  flags: ConnectionFlags,
  note: (words: string) => void,
  signal: AbortSignal,
): Promise<LiveModel> {
  return await LiveModel.open(
    parseServers(url, flags.allowRemote === true),
    { apiKey: flags.apiKey, timeout: flags.timeout * 1000, pauses: shortPauses, onRetry: note, note },
    signal,
  );
}
