/** Entry of the `indexcache` command. */
import process from "node:process";
import { runCommandLine } from "./program.ts";
import { exitQuietlyOnBrokenPipe } from "./terminal.ts";

exitQuietlyOnBrokenPipe();
process.exitCode = await runCommandLine(process.argv);
