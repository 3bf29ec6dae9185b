/** Entry of the `indexcache` command. */
import process from "node:process";
import { reportFailure } from "./console/failure.ts";
import { exitOnClosedStreams } from "./console/terminal.ts";
import { runCommandLine } from "./program.ts";

exitOnClosedStreams();
// What escapes from a timer or a stream: told as any other defect, with the exit code for one.
process.on("uncaughtException", (error) => process.exit(reportFailure(error)));
process.exitCode = await runCommandLine(process.argv);
