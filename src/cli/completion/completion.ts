/** `indexcache completion`: what a shell needs to complete commands, options and their values. */
import { Argument, type Command } from "commander";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";
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
  const command = program
    .command("completion")
    .description("Print a script that completes commands and options in your shell")
    .addArgument(new Argument("<shell>", "whose script").choices(shells));
  addWork(command, { options: [], help }, async (shell: Shell, _: object, terminal: Terminal) => {
    const whole = await buildAll();
    const published = (await readShelf()).map(({ name }) => name);
    const words = commandWords(whole, "", {
      patterns: ["full", "uniform:2", "uniform:4", "freq:4", ...published],
      commands: whole.commands.map((one) => one.name()),
    });
    terminal.result(completionScript(shell, words));
  });
}
