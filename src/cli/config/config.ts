/** `indexcache config`: what the config file and the environment set, and where each value of a command comes from. */
import process from "node:process";
import type { Command } from "commander";
import { z } from "zod";
import { formatTable, left } from "../../report/text-table.ts";
import { type Flags, option } from "../arguments/declared-option.ts";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";
import { commandNamed } from "../help/help-groups.ts";
import { COMMON, CONFIG_NAME, type ConfigFile, requireCommonKeys, requireSections } from "./config-file.ts";
import { chosenConfig, settingless } from "./configured.ts";
import { sectionOf, sectionSchema, settingsFor } from "./settings.ts";
import { settingsOf } from "./settings-table.ts";

const options = [
  option("--schema", "print the JSON Schema of config files"),
  option("--json", "print the result as JSON"),
] as const;

const help = `
${CONFIG_NAME} is looked for in this folder and those above it, up to the repository or the home folder; --config FILE or INDEXCACHE_CONFIG names another, --no-config none. It has a section for each command, with the options' long names, and "${COMMON}" for what several commands share:
  { "common": { "model": "./GLM-5" }, "search": { "retain": "1/4", "calibration": "text.jsonl" } }

Each option is also read from the environment: INDEXCACHE_SEQUENCE_LENGTH for --sequence-length. The command line counts most, then the environment, then the command's section, then "${COMMON}", then the default. Files that a config file names stand relative to it.

Examples:
  $ indexcache config
  $ indexcache config search
  $ INDEXCACHE_RETAIN=1/2 indexcache config search
  $ indexcache config --schema > config.schema.json`;

/** @param buildAll the whole program: sections are checked against the options of all commands */
export function addConfigCommand(program: Command, buildAll: () => Promise<Command>): void {
  const command = program
    .command("config")
    .description("Check the config file, and show where each value comes from")
    .argument("[command...]", "show all options of this command");
  addWork(command, { options, help }, async (words: string[], flags: Flags<typeof options>, terminal: Terminal) => {
    const all = await buildAll();
    if (flags.schema === true) return terminal.result(configJsonSchema(all));
    const config = await chosenConfig(program.opts());
    if (config !== undefined) checkWhole(config, all);
    if (words.length === 0) showFile(config, all, terminal);
    else showCommand(commandNamed(words, all), config, terminal);
  });
}

/** Commands that can have a section. */
function commandsOf(all: Command): Command[] {
  return all.commands.flatMap((command) => [
    ...(settingsOf(command).length > 0 && !settingless.has(command.name()) ? [command] : []),
    ...commandsOf(command),
  ]);
}

/** The JSON Schema that docs/config.schema.json holds. */
export function configJsonSchema(all: Command): string {
  const commands = commandsOf(all);
  const common = new Map(commands.flatMap((command) => settingsOf(command).map((one) => [one.key, one] as const)));
  const schema = z.strictObject({
    $schema: z.string().optional(),
    [COMMON]: sectionSchema([...common.values()].map((one) => ({ ...one, schema: anyValue })))
      .describe("What holds for every command that has such an option")
      .optional(),
    ...Object.fromEntries(
      commands.map((command) => [
        sectionOf(command),
        sectionSchema(settingsOf(command)).describe(command.description()).optional(),
      ]),
    ),
  });
  return `${JSON.stringify(z.toJSONSchema(schema, { io: "input" }), null, 2)}\n`;
}

/** Commands give the same name to different values: `common` is checked against the command that runs. */
const anyValue = z.union([z.string(), z.number(), z.boolean(), z.array(z.union([z.string(), z.number()]))]);

/** @throws InputError for anything that no command would take */
function checkWhole(config: ConfigFile, all: Command): void {
  const commands = commandsOf(all);
  const names = new Set(commands.map(sectionOf));
  requireSections(config, (name) => names.has(name));
  requireCommonKeys(config, new Set(commands.flatMap((command) => settingsOf(command).map(({ key }) => key))));
  for (const command of commands) settingsFor(command, config, {});
}

function showFile(config: ConfigFile | undefined, all: Command, terminal: Terminal): void {
  const found = commandsOf(all).flatMap((command) =>
    settingsFor(command, config, process.env).map(({ setting, value, from }) => ({
      command: sectionOf(command),
      option: setting.key,
      value,
      from,
    })),
  );
  const ignored = unreadVariables(all);
  const table = formatTable(found, [
    left("command", ({ command }) => command),
    left("option", ({ option }) => option),
    left("value", ({ value }) => String(value)),
    left("from", ({ from }) => from),
  ]);
  const file = config === undefined ? `No ${CONFIG_NAME} here or above.` : `Config file  ${config.path}`;
  terminal.answer({ file: config?.path ?? null, settings: found, unread_variables: ignored }, () =>
    found.length === 0 ? file : `${file}\n\n${table}`,
  );
  for (const name of ignored) terminal.warn(`${name} is set, and no option reads it`);
}

/** Variables named as ours that no option reads: typing errors, most likely. */
function unreadVariables(all: Command): string[] {
  const own = new Set(commandsOf(all).flatMap((command) => settingsOf(command).map(({ variable }) => variable)));
  const others = [
    "INDEXCACHE_CONFIG",
    ...commandsOf(all).flatMap(({ options }) => options.map(({ envVar }) => envVar)),
  ];
  return Object.keys(process.env).filter(
    (name) => name.startsWith("INDEXCACHE_") && !own.has(name) && !others.includes(name),
  );
}

function showCommand(command: Command, config: ConfigFile | undefined, terminal: Terminal): void {
  const found = new Map(settingsFor(command, config, process.env).map((one) => [one.setting.key, one]));
  const rows = settingsOf(command).map(({ key, option, argument, variable }) => {
    const set = found.get(key);
    const initial: unknown = option === undefined ? argument?.defaultValue : option.negate || option.defaultValue;
    return { option: key, variable, value: set?.value ?? initial ?? null, from: set?.from ?? "default" };
  });
  terminal.answer(rows, () =>
    formatTable(rows, [
      left("option", ({ option }) => option),
      left("value", ({ value }) => String(value ?? "") || "-"),
      left("from", ({ from }) => from),
    ]),
  );
}
