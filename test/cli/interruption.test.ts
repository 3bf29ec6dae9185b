import { expect, test } from "vitest";
import { programWords, recordedCommand, resumeCommand } from "../../src/cli/console/interruption.ts";

test("a program in node_modules/.bin is started as it can be again, never from the registry", () => {
  const script = "/home/a/new/node_modules/.bin/indexcache";
  const words = (env: Record<string, string>, folder: string) => programWords(["/usr/bin/node", script], env, folder);
  expect(words({ PATH: "/usr/bin" }, "/home/a/new")).toEqual(["npx", "indexcache"]);
  expect(words({ PATH: "/usr/bin" }, "/home/a/new/runs")).toEqual(["npx", "indexcache"]);
  expect(words({ PATH: "/usr/bin" }, "/home/a/newer")).toEqual([script]);
  expect(words({ PATH: "/home/a/new/node_modules/.bin:/usr/bin" }, "/data")).toEqual(["indexcache"]);
  // On the PATH of what npx starts, not on that of the shell.
  const ofNpx = { PATH: "/home/a/new/node_modules/.bin:/usr/bin", npm_command: "exec" };
  expect(words(ofNpx, "/home/a/new")).toEqual(["npx", "indexcache"]);
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
