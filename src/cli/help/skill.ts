/** `--help --skill`: a skill file for agents, markdown with front matter, made of the same table of options as the help. */
import type { Command, Option } from "commander";
import { toolVersion } from "../../base/version.ts";

/** @param commands those to describe, subcommands after their parents */
export function skillFile(program: Command, commands: readonly Command[]): string {
  const [only] = commands;
  const name = commands.length === 1 && only !== undefined ? `indexcache-${only.name()}` : "indexcache";
  const description =
    commands.length === 1 && only !== undefined
      ? `indexcache ${only.name()}: ${only.description()}`
      : program.description();
  return `---
name: ${name}
description: ${JSON.stringify(`${description}. Use it for lightning indexers, index_topk_pattern, GLM-5 and DeepSeek-V3.2 sparse attention.`)}
version: ${toolVersion}
---

# ${name}

${program.description()}.

- Results go to stdout (a table, or JSON with \`--json\`), everything else to stderr; \`-q\` leaves warnings and errors.
- Exit codes: 0 done, 1 a stated gate failed, 2 wrong usage or input, 3 the machine or the runtime failed, 130 interrupted.
- Long commands write a journal beside \`-o FILE\`; the same command with \`--resume\` continues from it.
- \`--dry-run\` says what a command would take. Options can also stand in \`indexcache.config.json\`.

${commands
  .flatMap((command) => [command, ...command.commands])
  .map(section)
  .join("\n")}`;
}

function section(command: Command): string {
  const path = command.parent?.parent == null ? command.name() : `${command.parent.name()} ${command.name()}`;
  const options = command.options.filter(({ hidden, long }) => !hidden && long !== "--help-all");
  return `## indexcache ${path}

${command.description()}.

Usage: \`indexcache ${path} ${command.usage()}\`

${command.registeredArguments.map((argument) => `- \`${argument.name()}\`: ${argument.description}\n`).join("")}${options.map(line).join("")}
${examples(command)}`;
}

function line({ flags, description, argChoices, defaultValue, mandatory }: Option): string {
  const more = [
    ...(mandatory ? ["required"] : []),
    ...(argChoices === undefined ? [] : [`one of ${argChoices.join(", ")}`]),
    ...(["string", "number"].includes(typeof defaultValue) ? [`default ${String(defaultValue)}`] : []),
  ];
  return `- \`${flags}\`: ${description}${more.length === 0 ? "" : ` (${more.join("; ")})`}\n`;
}

/** The commands that the help shows. */
function examples(command: Command): string {
  let text = "";
  command.configureOutput({
    writeOut: (part) => {
      text += part;
    },
  });
  command.outputHelp();
  const lines = text.split(/^Examples:\n/m)[1]?.split("\n\n")[0];
  if (lines === undefined) return "";
  return `\`\`\`bash\n${lines.replace(/^ {2}\$ /gm, "").trimEnd()}\n\`\`\`\n`;
}
