/** The program of a thread that reads weight files, one after the other: `weight-readers.ts` is its other end. */
import { readSync } from "node:fs";
import { type MessagePort, parentPort } from "node:worker_threads";
import { toReply } from "../base/failed-reply.ts";
import { type FileTask, readWeightFile } from "./weight-file.ts";
import type { ReaderReply } from "./weight-readers.ts";

const port = parentPort as MessagePort;
const tell = (reply: ReaderReply): void => port.postMessage(reply);

port.on("message", (task: FileTask) => {
  readWeightFile(
    task,
    // This thread has nothing else to do: no reading waits for one of the few threads that all of a process share.
    (source, block, length, at) => readSync(source.fd, block, 0, length, at),
    (bytes) => tell({ kind: "read", bytes }),
  ).then(
    (sha256) => tell({ kind: "done", sha256 }),
    (error) => tell(toReply(error)),
  );
});
