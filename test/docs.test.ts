/** What README.md and docs/ tell readers to type: commands and options that exist, files that are there. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { commandWords } from "../src/cli/completion/command-words.ts";
import { buildProgram } from "../src/cli/program.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
/** The log tells of commands as they were. */
const pages = [
  "README.md",
  "patterns/README.md",
  ...readdirSync(join(root, "docs")).map((name) => `docs/${name}`),
].filter((page) => page.endsWith(".md") && page !== "docs/log.md");

/** Options of each command, by its words: `pattern apply`. */
const options = new Map<string, string[]>();
beforeAll(async () => {
  for (const command of commandWords(await buildProgram())) {
    options.set(
      command.path,
      command.options.flatMap(({ names }) => names),
    );
  }
});

/** Commands in code blocks, indented or fenced: whole lines without comments. */
function commandsOf(page: string): string[] {
  let isFenced = false;
  return readFileSync(join(root, page), "utf8")
    .replaceAll("\\\n", " ")
    .split("\n")
    .flatMap((line) => {
      if (line.startsWith("```")) isFenced = !isFenced;
      const [, indent = "", words] = /^(\s*)(?:\$ )?(?:[A-Z_]+=\S+ )*indexcache (.*)$/.exec(line) ?? [];
      if (words === undefined || !(isFenced || indent.length >= 4)) return [];
      return [words.replace(/ # .*| {2,}[a-z].*/, "")];
    });
}

test("there are commands to look at", () => {
  expect(pages.flatMap(commandsOf).length).toBeGreaterThan(60);
});

describe.each(pages)("%s", (page) => {
  test("names commands and options that exist", () => {
    for (const line of commandsOf(page)) {
      const words = line.replace(/'[^']*'|"[^"]*"/g, "TEXT").split(/[\s|;]+/);
      const path = options.has(words.slice(0, 2).join(" ")) ? words.slice(0, 2).join(" ") : (words[0] ?? "");
      if (/^-|^COMMAND$/.test(path)) continue;
      expect(options.has(path), `${line}: is there a command "${path}"?`).toBe(true);
      const given = words.filter((word) => /^--?[a-z]/.test(word)).map((word) => word.replace(/=.*/, ""));
      const known = [...(options.get(path) ?? []), "--help", "--help-all", "--skill"];
      for (const option of given) expect(known, `${line}: ${option}`).toContain(option);
    }
  });

  test("links to files that are there", () => {
    const text = readFileSync(join(root, page), "utf8");
    for (const [, target = ""] of text.matchAll(/\]\((?!https?:|#)([^)#\s]+)[^)]*\)/g)) {
      expect(existsSync(join(root, dirname(page), target)), target).toBe(true);
    }
  });
});
