import { join } from "node:path";
import process from "node:process";
import { defineConfig } from "vitest/config";

// What a shell or a CI has set for programs of its own must not decide what tests see: colours, widths, languages, and
// options of this tool.
for (const name of Object.keys(process.env)) {
  if (/^(FORCE_COLOR|COLUMNS|LINES|LANG|LANGUAGE|LC_\w+|INDEXCACHE_\w+)$/.test(name)) delete process.env[name];
}

// biome-ignore lint/style/noDefaultExport: vitest reads the default export
export default defineConfig({
  test: {
    // The built program runs as it is, in tests too that run it in their own process.
    server: { deps: { external: [new RegExp(`^${join(import.meta.dirname, "dist")}/`)] } },
    globalSetup: "test/build.ts",
    include: ["test/**/*.test.ts", "test/**/*.test.tsx"],
    // The runtime is a native module whose first session decides process-wide settings: one process per file.
    pool: "forks",
    maxWorkers: 2,
    // For hangs only: on a machine that others use as well the slowest test takes minutes.
    testTimeout: 240_000,
    hookTimeout: 240_000,
  },
});
