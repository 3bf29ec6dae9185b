import { expect, test } from "vitest";
import { recordedCommand, resumeCommand } from "../../src/cli/console/interruption.ts";

test("a program in node_modules/.bin, which is on no PATH, is started by npx", () => {
  expect(resumeCommand(["/usr/bin/node", "/home/a/new/node_modules/.bin/indexcache", "search"])).toBe(
    "npx indexcache search --resume",
  );
});

test("resumeCommand() is the command line as given, quoted, with --resume", () => {
  expect(resumeCommand(["/usr/bin/node", "/usr/local/bin/indexcache", "search", "-o", "my p.json", "--fresh"])).toBe(
    "indexcache search -o 'my p.json' --resume",
  );
  expect(resumeCommand(["/usr/bin/node", "/home/a/bin/indexcache.js", "search", "it's", "--resume"])).toBe(
    "node /home/a/bin/indexcache.js search 'it'\\''s' --resume",
  );
});

test("recordedCommand() keeps no key", () => {
  const given = ["node", "indexcache", "eval", "--api-key", "secret", "-p", "full", "--api-key=secret"];
  expect(recordedCommand(given)).toBe("indexcache eval -p full");
});

test("recordedCommand() is the same for a run in one part and in several", () => {
  const given = ["/usr/bin/node", "/home/a/bin/indexcache.js", "search", "-o", "my p.json"];
  expect(recordedCommand(given)).toBe("indexcache search -o 'my p.json'");
  expect(recordedCommand([...given, "--resume"])).toBe(recordedCommand(given));
});
