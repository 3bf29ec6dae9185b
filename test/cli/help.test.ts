import type { Command } from "commander";
import { beforeAll, describe, expect, test } from "vitest";
import { helpText } from "../../src/cli/help/help-text.ts";
import { buildProgram } from "../../src/cli/program.ts";
import { indexcache } from "./indexcache.ts";

const COLUMNS = 80;

let program: Command;
beforeAll(async () => {
  program = await buildProgram();
});

/** A command and those below it. */
function tree(command: Command): Command[] {
  return [command, ...command.commands.flatMap(tree)];
}

/** What a command prints for an option such as `--help`; it throws, as it would end the process. */
function printed(command: Command, option: string): string {
  let text = "";
  command.exitOverride().configureOutput({ writeOut: (part) => (text += part) });
  expect(() => command.parse([option], { from: "user" })).toThrow("(outputHelp)");
  return text;
}

const hasGroups = (command: Command): boolean => command.options.some(({ long }) => long === "--help-all");

describe("help", () => {
  test("of a command that a command has, and of none", async () => {
    expect(await indexcache(".", ["help", "pattern", "apply"])).toMatchObject({
      status: 0,
      stdout: expect.stringContaining("Usage: indexcache pattern apply "),
    });
    expect(await indexcache(".", ["help", "frob"])).toMatchObject({
      ...{ status: 2, stdout: "" },
      stderr: expect.stringMatching(/^error: "frob" is no command\n/),
    });
  });

  test("fits into 80 columns, all of it", () => {
    for (const command of tree(program)) {
      for (const option of ["--help", ...(hasGroups(command) ? ["--help-all"] : [])]) {
        const lines = printed(command, option).split("\n");
        expect(lines.join(" "), `${command.name()} ${option}`).not.toContain("[])");
        expect(
          lines.filter((line) => line.length > COLUMNS),
          `${command.name()} ${option}`,
        ).toEqual([]);
      }
    }
  });

  test("shows about ten options first, and all of them in groups when asked", () => {
    for (const command of tree(program).filter(({ options }) => options.length > 15)) {
      expect(hasGroups(command), command.name()).toBe(true);
    }
    for (const command of tree(program).filter(hasGroups)) {
      const listed = (text: string) => text.match(/^ {2}-/gm)?.length ?? 0;
      const short = printed(command, "--help");
      expect(listed(short), command.name()).toBeLessThanOrEqual(15);
      expect(short.match(/^\S.*:$/gm)).toContain("Options:");
      const all = printed(command, "--help-all");
      // Those of the command but --help-all itself, and commander's --help.
      expect(listed(all), command.name()).toBe(command.options.filter(({ hidden }) => !hidden).length);
      expect(all).not.toMatch(/^Options:$/m);
      expect(short).toContain(`show all ${listed(all) - 1} options`);
    }
  });

  test("has examples that the command line understands", async () => {
    for (const command of tree(program).slice(1)) {
      const examples = examplesOf(printed(command, "--help"));
      expect(examples, command.name()).not.toEqual([]);
      for (const words of examples) {
        const fresh = await buildProgram(words[0]);
        for (const each of tree(fresh).slice(1)) each.action(() => {});
        await expect(fresh.parseAsync(words, { from: "user" }), words.join(" ")).resolves.toBeDefined();
      }
    }
  });
});

/** The words of every `$ indexcache ...` in a help text. */
function examplesOf(text: string): string[][] {
  return [...text.replaceAll(/ \\\n +/g, " ").matchAll(/^ {2}\$ (?:.* \| )?indexcache (.*)$/gm)].map(
    ([, line = ""]) => {
      const [words = ""] = line.split(/ {2,}| > /);
      return [...words.matchAll(/"(?:\$\(.*?\)|[^"])*"|'[^']*'|\S+/g)].map(([word]) =>
        word.replace(/^["'](.*)["']$/, "$1"),
      );
    },
  );
}

test("prose flows, items hang, and long commands go on in the next line", () => {
  const words = "word ".repeat(20).trim();
  const text = helpText(
    `${words}\nmore\n\nList:\n  name  ${words}\n  $ indexcache loss --a ${"x".repeat(40)} --b ${"y".repeat(40)}  why`,
  );
  expect(text.split("\n")).toEqual([
    "word ".repeat(16).trim(),
    "word word word word more",
    "",
    "List:",
    `  name  ${"word ".repeat(14).trim()}`,
    `        ${"word ".repeat(6).trim()}`,
    `  $ indexcache loss --a ${"x".repeat(40)} \\`,
    `      --b ${"y".repeat(40)}`,
    "      (why)",
  ]);
});
