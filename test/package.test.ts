/** What npm is handed: an install needs nothing but npm's registry, and the package stays small. */
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { z } from "zod";

const root = fileURLToPath(new URL("..", import.meta.url));
const run = promisify(execFile);
const packageSchema = z.object({
  dependencies: z.record(z.string(), z.string()),
  bundleDependencies: z.array(z.string()),
  optionalDependencies: z.record(z.string(), z.string()),
});
const packedSchema = z
  .array(z.object({ size: z.number(), bundled: z.array(z.string()), files: z.array(z.object({ path: z.string() })) }))
  .length(1);

async function packageFile(): Promise<z.infer<typeof packageSchema>> {
  return packageSchema.parse(JSON.parse(await readFile(join(root, "package.json"), "utf8")));
}

/** The environment without settings of npm or the user that reach install scripts. */
function plainEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|ONNXRUNTIME_)/i.test(name)));
}

test("onnxruntime-node's install script downloads nothing unless asked to", async () => {
  const folder = dirname(dirname(createRequire(import.meta.url).resolve("onnxruntime-node")));
  const install = (more: NodeJS.ProcessEnv) =>
    run(process.execPath, [join(folder, "script", "install.js")], {
      cwd: folder,
      env: { ...plainEnvironment(), ...more },
    });
  // On Linux x64 it would look NuGet's address up and fail where there is no way to it.
  expect(await install({})).toEqual({ stdout: "", stderr: "" });
  for (const name of ["ONNXRUNTIME_NODE_INSTALL", "npm_config_onnxruntime_node_install"])
    await expect(wanted({ [name]: "cuda12" })).resolves.not.toBe("skip");
  await expect(wanted({})).resolves.toBe("skip");
});

/** What the stand-in leaves the install script to read. */
async function wanted(environment: NodeJS.ProcessEnv): Promise<string> {
  const { stdout } = await run(
    process.execPath,
    ["-p", 'require("global-agent").bootstrap(); process.env.ONNXRUNTIME_NODE_INSTALL ?? ""'],
    { cwd: root, env: { ...plainEnvironment(), ...environment } },
  );
  return stdout.trim();
}

test("the packed tarball brings the stand-in that says so, and is below 12 MB", async () => {
  const { stdout } = await run("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    cwd: root,
    env: plainEnvironment(),
  });
  const [packed] = packedSchema.parse(JSON.parse(stdout));
  expect(packed?.bundled).toEqual(["global-agent"]);
  expect(packed?.size).toBeLessThan(12e6);
  const paths = packed?.files.map(({ path }) => path);
  expect(paths).toEqual(
    expect.arrayContaining([
      "bin/indexcache.js",
      "dist/cli/main.js",
      "tools/install/preinstall.js",
      "patterns/zai-org/GLM-5/quarter.json",
      "models/demo/config.json",
      "calibration/words/nouns.txt",
    ]),
  );
});

test("where the runtime lies beside the package, the stand-in is laid below it before it is looked for", async () => {
  const folder = await mkdtemp(join(tmpdir(), "indexcache-beside-"));
  try {
    const [own, runtime] = ["indexcache", "onnxruntime-node"].map((name) => join(folder, "node_modules", name));
    const standIn = join(root, "tools/install/global-agent");
    await cp(standIn, join(own as string, "node_modules/global-agent"), { recursive: true });
    await cp(join(root, "tools/install/preinstall.js"), join(own as string, "tools/install/preinstall.js"));
    await writeFile(join(own as string, "package.json"), '{"type": "module"}');
    for (const path of [runtime as string, join(folder, "node_modules/global-agent")]) {
      await mkdir(path, { recursive: true });
      await writeFile(join(path, "package.json"), '{"version": "1.0.0"}');
    }
    await run(process.execPath, [join(own as string, "tools/install/preinstall.js")]);
    const laid = join(runtime as string, "node_modules/global-agent");
    for (const file of await readdir(standIn)) {
      expect(await readFile(join(laid, file), "utf8")).toBe(await readFile(join(standIn, file), "utf8"));
    }
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("versions are pinned, and the stand-in has the version that is asked for", async () => {
  const { dependencies, bundleDependencies } = await packageFile();
  for (const [name, version] of Object.entries(dependencies)) expect(version, name).toMatch(/^\d+\.\d+\.\d+$/);
  const standIn = z
    .object({ name: z.string(), version: z.string() })
    .parse(JSON.parse(await readFile(join(root, "tools/install/global-agent/package.json"), "utf8")));
  expect([standIn.name]).toEqual(bundleDependencies);
  expect(standIn.version).toBe(dependencies[standIn.name]);
});

test("every library is named in the notices, and no other", async () => {
  const notices = await readFile(join(root, "THIRD_PARTY_NOTICES.md"), "utf8");
  const { dependencies, optionalDependencies, bundleDependencies } = await packageFile();
  const libraries = Object.keys({ ...dependencies, ...optionalDependencies });
  expect(Array.from(notices.matchAll(/^\| \[([^\]]+)\]\(/gm), ([, name]) => name)).toEqual(
    libraries.filter((name) => !bundleDependencies.includes(name)).sort(),
  );
});
