/**
 * One process at a time writes a file. Whoever does listens on a local socket that is named after the path: the system takes
 * it away with the process, however that ends, so that nothing is left to clear up. It holds on one machine.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { realpath, rm } from "node:fs/promises";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { systemErrorCode } from "./files.ts";

/** Of this process: a file that is opened again here is not somebody else's. */
const held = new Map<string, Server>();

/**
 * Claims a file for this process.
 * @param path need not exist, its folder has to
 * @returns false where another process of this machine has it
 */
export async function claimFile(path: string): Promise<boolean> {
  const name = await socketOf(path);
  if (held.has(name)) return true;
  const code = await listenOn(name);
  if (code !== "EADDRINUSE") return true;
  // A file of a process that is gone, on systems whose sockets are files.
  if (process.platform === "linux" || process.platform === "win32" || (await isAnswered(name))) return false;
  await rm(name, { force: true });
  return (await listenOn(name)) !== "EADDRINUSE";
}

/** Gives it back. */
export async function releaseFile(path: string): Promise<void> {
  const name = await socketOf(path);
  held.get(name)?.close();
  held.delete(name);
}

async function socketOf(path: string): Promise<string> {
  const folder = await realpath(dirname(path)).catch(() => dirname(path));
  const hash = createHash("sha256")
    .update(join(folder, basename(path)))
    .digest("hex")
    .slice(0, 24);
  if (process.platform === "linux") return `\0indexcache-${hash}`;
  return process.platform === "win32" ? `\\\\.\\pipe\\indexcache-${hash}` : join(tmpdir(), `indexcache-${hash}.sock`);
}

/** Listens, and returns what prevents it. Where there are no sockets at all, files are not guarded. */
async function listenOn(name: string): Promise<string | undefined> {
  const server = createServer((socket) => socket.destroy()).unref();
  try {
    server.listen(name);
    await once(server, "listening");
    held.set(name, server);
    return undefined;
  } catch (error) {
    return systemErrorCode(error) ?? "unknown";
  }
}

async function isAnswered(name: string): Promise<boolean> {
  const socket = connect(name);
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
