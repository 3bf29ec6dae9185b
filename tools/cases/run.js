/**
 * Runs a folder of cases and prints what came out beside what each expects:
 *
 *   CASES=folder PY=python3 node tools/cases/run.js [NAME...] > docs/measurements/cases-DATE/output.txt
 *
 * A case is a folder with `cmd` (a bash script, run inside it), `expected.txt` (what should come out, in words) and its
 * inputs or a `make.py` that builds them from the demo model; PY is a Python with numpy, ml_dtypes, pyarrow and zstandard.
 * The cases are copied first and the copy is removed afterwards. Whether what came out is what was expected is for a person
 * to say; the README beside a committed output does.
 * Exit code 1 if a case ran out of time or printed a stack.
 */
import { spawn } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";

const SECONDS_FOR_A_CASE = 300;
const root = resolve(import.meta.dirname, "..", "..");

const given = process.env.CASES;
if (given === undefined) {
  process.stderr.write("CASES is not set: it names the folder of cases\n");
  process.exit(2);
}
const folder = await mkdtemp(join(await realpath(tmpdir()), "cases-"));
let broken = 0;
try {
  await cp(given, folder, { recursive: true });
  const wanted = process.argv.slice(2);
  for (const name of await caseNames(folder)) {
    if (wanted.length > 0 && !wanted.some((prefix) => name.startsWith(prefix))) continue;
    const expected = await readFile(join(folder, name, "expected.txt"), "utf8");
    const { output, end } = await runCase(join(folder, name));
    if (end !== "exit 0" || /this is a defect|^ {4}at .*:\d+:\d+/m.test(output)) broken += 1;
    process.stdout.write(
      `=== ${name} (${end})\n--- expected\n${expected.trim()}\n--- came out\n${scrub(output).trim()}\n\n`,
    );
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
process.stdout.write(`${broken} cases ran out of time, ended in a failure of their own or printed a stack\n`);
process.exitCode = broken > 0 ? 1 : 0;

async function caseNames(parent) {
  const entries = await readdir(parent, { withFileTypes: true });
  return entries
    .filter((entry) => entry.isDirectory() && /^\d/.test(entry.name))
    .map((entry) => entry.name)
    .sort();
}

/** Both streams of a case in the order they came, and how it ended; the whole process group is killed at the limit. */
function runCase(directory) {
  return new Promise((done) => {
    const child = spawn("bash", ["cmd"], {
      cwd: directory,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        REPO: root,
        IC: `${process.execPath} ${join(import.meta.dirname, "command.js")}`,
        PY: process.env.PY ?? "python3",
        COLUMNS: "80",
        NO_COLOR: "1",
      },
    });
    let output = "";
    let late = false;
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        output += text;
      });
    }
    const timer = setTimeout(() => {
      late = true;
      process.kill(-child.pid, "SIGKILL");
    }, SECONDS_FOR_A_CASE * 1000);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      done({ output, end: late ? `no end in ${SECONDS_FOR_A_CASE} s` : code === null ? signal : `exit ${code}` });
    });
  });
}

/** Places of this machine are nobody's business. */
function scrub(text) {
  return text.replaceAll(folder, "CASES").replaceAll(root, "REPO");
}
