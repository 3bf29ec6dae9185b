/** A program whose commands take values from the config file and the environment. */
import process from "node:process";
import type { Command } from "commander";
import { UsageError } from "../../base/errors.ts";
import { recordSettings } from "../console/interruption.ts";
import { Terminal } from "../console/terminal.ts";
import {
  COMMON,
  type ConfigFile,
  configHint,
  findConfig,
  readConfig,
  requireCommonKeys,
  requireSections,
} from "./config-file.ts";
import { applySettings, sectionOf, settingsFor, settingsInForce, wordsInForce } from "./settings.ts";
import { settingsOf } from "./settings-table.ts";

interface ProgramFlags {
  /** A path, or false with `--no-config`; true where neither is given. */
  config: string | boolean;
}

/** Commands that are about settings, and take none. */
export const settingless: ReadonlySet<string> = new Set(["config", "completion", "help", "init"]);

/** The config file to go by: of `--config FILE` or `INDEXCACHE_CONFIG`, or the nearest one. */
export async function chosenConfig({ config }: ProgramFlags): Promise<ConfigFile | undefined> {
  if (config === false) return undefined;
  if (config === "") throw new UsageError("--config is empty: it names the config file");
  const path = typeof config === "string" ? config : process.env.INDEXCACHE_CONFIG || findConfig(process.cwd());
  return path === undefined ? undefined : await readConfig(path);
}

/**
 * Sets what file and environment say before a command is parsed.
 * @param names of all commands, for sections of those that are not loaded
 */
export function takeSettings(
  program: Command,
  argv: readonly string[],
  names: readonly string[],
  buildAll: () => Promise<Command>,
): void {
  let config: Promise<ConfigFile | undefined> | undefined;
  const visit = (command: Command): void => {
    command.hook("preSubcommand", async (_, subcommand) => {
      // A file that is wrong must not stand between a user and the help.
      if (settingless.has(subcommand.name()) || argv.some((word) => /^(-h|--help|--help-all)$/.test(word))) return;
      config ??= chosenConfig(program.opts());
      const file = await config;
      if (file !== undefined) await requireKnown(file, subcommand, names, buildAll);
      applySettings(subcommand, settingsFor(subcommand, file, process.env));
    });
    for (const each of command.commands) visit(each);
  };
  visit(program);
  program.hook("preAction", (_, command) => {
    recordSettings(sectionOf(command).split(" "), wordsInForce(command));
    const terminal = new Terminal(command.opts());
    for (const { setting, value, from } of settingsInForce(command)) {
      terminal.detail(`setting: ${setting.key} is ${String(value)} (${from})`);
    }
  });
}

/** What the running command does not know may be another command's; where no command has it, it is a mistake. */
async function requireKnown(
  file: ConfigFile,
  command: Command,
  names: readonly string[],
  buildAll: () => Promise<Command>,
): Promise<void> {
  requireSections(file, (name) => {
    const [first = ""] = name.split(" ");
    return names.includes(first) && !settingless.has(first);
  });
  const own = new Set(settingsOf(command).map(({ key }) => key));
  if (Object.keys(file.sections.get(COMMON) ?? {}).every((key) => own.has(key))) return;
  const all = (one: Command): Command[] => [one, ...one.commands.flatMap(all)];
  const known = new Set(all(await buildAll()).flatMap((one) => settingsOf(one).map(({ key }) => key)));
  const hint = `${configHint}; the options of ${sectionOf(command)}: indexcache config ${sectionOf(command)}`;
  requireCommonKeys(file, known, hint);
}
