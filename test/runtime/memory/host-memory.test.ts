import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { availableMemory } from "../../../src/runtime/device/host-memory.ts";

const gigabyte = 2 ** 30;

let mount: string;
beforeEach(async () => {
  mount = await mkdtemp(join(tmpdir(), "indexcache-cgroup-"));
});
afterEach(() => rm(mount, { recursive: true }));

async function group(folder: string, files: Record<string, string | number>): Promise<void> {
  await mkdir(join(mount, folder), { recursive: true });
  for (const [name, content] of Object.entries(files)) await writeFile(join(mount, folder, name), `${content}\n`);
}

async function places(membership: string) {
  await writeFile(join(mount, "membership"), membership);
  return { mount, membership: join(mount, "membership") };
}

test("without a limit the machine's free memory counts", async () => {
  await group("", { "memory.max": "max", "memory.current": 5 });
  expect(availableMemory(await places("0::/\n"), 7 * gigabyte)).toBe(7 * gigabyte);
  expect(availableMemory({ mount: "/nowhere", membership: "/nowhere" }, 3)).toBe(3);
});

test("version 2: what the tightest group leaves, files in its cache aside", async () => {
  const stat = `anon 5\ninactive_file ${gigabyte}\nactive_file ${gigabyte}`;
  await group("pod", { "memory.max": 8 * gigabyte, "memory.current": 5 * gigabyte, "memory.stat": stat });
  await group("pod/job", { "memory.max": "max", "memory.current": gigabyte, "memory.stat": "inactive_file 0" });
  expect(availableMemory(await places("0::/pod/job\n"), 64 * gigabyte)).toBe(5 * gigabyte);
});

test("version 1, in a container that sees its own group as the topmost", async () => {
  await group("memory", {
    "memory.limit_in_bytes": 4 * gigabyte,
    "memory.usage_in_bytes": 3 * gigabyte,
    "memory.stat": `total_inactive_file ${gigabyte}\ntotal_active_file 0`,
  });
  const lines = "9:cpu:/x\n4:cpu,memory:/docker/0123\n0::/\n";
  expect(availableMemory(await places(lines), 64 * gigabyte)).toBe(2 * gigabyte);
});
