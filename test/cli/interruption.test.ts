import { expect, test } from "vitest";
import { resumeCommand } from "../../src/cli/interruption.ts";

test("resumeCommand() is the command line as given, quoted, with --resume", () => {
  expect(resumeCommand(["/usr/bin/node", "/usr/local/bin/indexcache", "search", "-o", "my p.json", "--fresh"])).toBe(
    "indexcache search -o 'my p.json' --resume",
  );
  expect(resumeCommand(["/usr/bin/node", "/home/a/bin/indexcache.js", "search", "it's", "--resume"])).toBe(
    "node /home/a/bin/indexcache.js search 'it'\\''s' --resume",
  );
});
