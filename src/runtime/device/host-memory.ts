/** The memory that this process may still have: what the machine has free, or what its control group leaves of a limit. */
import { readFileSync } from "node:fs";
import { freemem } from "node:os";
import { dirname, join } from "node:path";

/** Where Linux mounts control groups, and where a process reads its own. */
export interface ControlGroupPlaces {
  mount: string;
  membership: string;
}

const linux: ControlGroupPlaces = { mount: "/sys/fs/cgroup", membership: "/proc/self/cgroup" };

/** Bytes. Cached files of the control group count as free: the system drops them when memory is asked for. */
export function availableMemory(places: ControlGroupPlaces = linux, free = freemem()): number {
  return Math.max(0, Math.min(free, ...groupFolders(places).map(leftIn)));
}

/** The folders of the process's memory group and of those above it; a container may see only the topmost. */
function groupFolders({ mount, membership }: ControlGroupPlaces): { folder: string; version: 1 | 2 }[] {
  return read(membership)
    .split("\n")
    .flatMap((line) => {
      const [number, controllers = "", path = ""] = line.split(":");
      const version =
        number === "0" && controllers === "" ? 2 : controllers.split(",").includes("memory") ? 1 : undefined;
      if (version === undefined || !path.startsWith("/")) return [];
      const root = version === 1 ? join(mount, "memory") : mount;
      const folders = [];
      for (let at = path; ; at = dirname(at)) {
        folders.push({ folder: join(root, at), version } as const);
        if (dirname(at) === at) return folders;
      }
    });
}

function leftIn({ folder, version }: { folder: string; version: 1 | 2 }): number {
  const [limitName, usageName, prefix] =
    version === 2
      ? (["memory.max", "memory.current", ""] as const)
      : (["memory.limit_in_bytes", "memory.usage_in_bytes", "total_"] as const);
  const limit = Number(read(join(folder, limitName)) || "max");
  const usage = Number(read(join(folder, usageName)) || "NaN");
  if (!Number.isFinite(limit) || !Number.isFinite(usage)) return Number.POSITIVE_INFINITY;
  const statistics = read(join(folder, "memory.stat"));
  const cached = ["inactive_file", "active_file"].map((name) =>
    Number(new RegExp(`^${prefix}${name} (\\d+)$`, "m").exec(statistics)?.[1] ?? 0),
  );
  return limit - Math.max(0, usage - cached.reduce((total, bytes) => total + bytes, 0));
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}
