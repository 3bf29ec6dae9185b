/** A folder for the files of tests. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach } from "vitest";

/**
 * The path of a new folder, which is gone after the last test.
 * @param of each `test` finds it empty, or those of a `file` see what the ones before them wrote
 */
export function temporaryFolder(of: "test" | "file"): string {
  const folder = mkdtempSync(join(tmpdir(), "indexcache-test-"));
  if (of === "test") {
    afterEach(() => {
      for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
    });
  }
  afterAll(() => rmSync(folder, { recursive: true }));
  return folder;
}
