/** `indexcache completion`: what a shell needs to complete commands, options and their values. */
import { Argument, type Command } from "commander";
import { Terminal } from "../console/terminal.ts";
import { helpText } from "../help/help-text.ts";
import { readShelf } from "../pattern/shelf.ts";
import { commandWords } from "./command-words.ts";
import { completionScript, type Shell, shells } from "./shell-scripts.ts";

const help = `
Commands, options, and the values of those that have names: devices, engines, suites, strategies, patterns. Where a file is meant, files are offered.

Examples:
  $ indexcache completion bash > indexcache.bash
  $ indexcache completion zsh > _indexcache
  $ indexcache completion fish > indexcache.fish

For every session: source <(indexcache completion bash) in ~/.bashrc; _indexcache in a folder of zsh's $fpath; indexcache.fish in ~/.config/fish/completions.`;

/** @param buildAll the whole program */
export function addCompletionCommand(program: Command, buildAll: () => Promise<Command>): void {
  program
    .command("completion")
    .description("Print a script that completes commands and options in your shell")
    .addArgument(new Argument("<shell>", "whose script").choices(shells))
    .addHelpText("after", helpText(help))
    .action(async (shell: Shell) => {
      const whole = await buildAll();
      const published = (await readShelf()).map(({ name }) => name);
      const words = commandWords(whole, "", {
        patterns: ["full", "uniform:2", "uniform:4", "freq:4", ...published],
        commands: whole.commands.map((command) => command.name()),
      });
      new Terminal({}).result(completionScript(shell, words));
    });
}
