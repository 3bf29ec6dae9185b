import { appendFile, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { InputError, ResumeMismatchError, RuntimeFailure } from "../../src/base/errors.ts";
import {
  type JournalEntry,
  type JournalFingerprint,
  knownSequences,
  openJournal,
  readJournal,
  requireAgreement,
  requireSameNumbers,
} from "../../src/formats/journal.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const folder = temporaryFolder("test");
const path = join(folder, "p.json.journal.jsonl");

const fingerprint: JournalFingerprint = {
  model_name: "glm-tiny",
  model_config_hash: "a",
  weight_hash: "b",
  calibration_hash: "c",
  settings: { dtype: "float32" },
  search: { strategy: "greedy", objective: "nll" },
  tool_version: "0.1.0",
};

function entry(pattern: string, loss: number): JournalEntry {
  return {
    pattern,
    sequences: [
      { index: 0, loss, tokens: 7 },
      { index: 3, loss: loss + 1, tokens: 7 },
    ],
    seconds: 0.5,
    executions: { body: 4, indexer: 3, naive_body: 8, naive_indexer: 7 },
  };
}

const entries = [entry("FFFF", 0.1 + 0.2), entry("FSFF", 2.5), entry("FFSF", 1 / 3)];

async function written(): Promise<void> {
  const journal = await openJournal(path, fingerprint, "create");
  for (const one of entries) await journal.append(one);
  await journal.close();
}

describe("journals", () => {
  test("give back what was appended, to the last bit", async () => {
    await written();
    expect((await readJournal(path))?.entries).toEqual(entries);
    expect((await readFile(path, "utf8")).split("\n")).toHaveLength(5);
  });

  test("are never overwritten without being asked", async () => {
    await written();
    const error = await openJournal(path, fingerprint, "create").catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(InputError);
    expect(error).toMatchObject({
      message: expect.stringContaining("exists already"),
      hint: expect.stringMatching(/--resume.*--fresh/),
    });
    expect((await readJournal(path))?.entries).toEqual(entries);
  });

  test("start anew with fresh", async () => {
    await written();
    await (await openJournal(path, fingerprint, "fresh")).close();
    expect((await readJournal(path))?.entries).toEqual([]);
  });

  test("go on after any kill: whatever byte the file was cut at, the whole lines are kept and the rest is redone", async () => {
    await written();
    const whole = await readFile(path);
    for (let cut = 0; cut <= whole.length; cut += 7) {
      await writeFile(path, whole.subarray(0, cut));
      const lines = whole.subarray(0, cut).toString().split("\n").length - 1;
      const journal = await openJournal(path, fingerprint, "resume");
      expect(journal.entries).toEqual(entries.slice(0, Math.max(lines - 1, 0)));
      for (const one of entries.slice(journal.entries.length)) await journal.append(one);
      await journal.close();
      expect(await readFile(path)).toEqual(whole);
    }
  });

  test("name the line that is bad", async () => {
    await written();
    await appendFile(path, '{"pattern":"FSSF"}\n');
    await expect(readJournal(path)).rejects.toThrow(/line 5: "sequences"/);
    const whole = (await readFile(path, "utf8")).split("\n");
    await writeFile(path, [whole[0], "torn in the middle", ...whole.slice(2)].join("\n"));
    await expect(readJournal(path)).rejects.toThrow(/line 2 is not JSON/);
    await writeFile(path, Buffer.from([...Buffer.from(`${whole[0]}\n`), 0xff, 0xfe, 10]));
    await expect(readJournal(path)).rejects.toThrow(/line 2 is not valid UTF-8/);
  });

  test("are told from other files", async () => {
    await writeFile(path, '{"text":"a calibration set"}\n');
    await expect(openJournal(path, fingerprint, "resume")).rejects.toThrow(/line 1: "kind"/);
  });

  test("refuse to go on with other inputs and list each difference", async () => {
    await written();
    const other = {
      ...fingerprint,
      weight_hash: "x",
      calibration_hash: "y",
      settings: { dtype: "float16" },
      search: { strategy: "greedy", objective: "kl" },
      tool_version: "0.2.0",
    };
    const failure = expect(openJournal(path, other, "resume")).rejects;
    await failure.toThrow(ResumeMismatchError);
    const error = await openJournal(path, other, "resume").catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      message: expect.stringMatching(
        /weight_hash \(journal: b, now: x\); calibration_hash \(journal: c, now: y\); settings.dtype \(journal: float32, now: float16\); tool_version \(journal: 0.1.0, now: 0.2.0\); search.objective \(journal: nll, now: kl\)/,
      ),
      hint: expect.stringContaining("--fresh"),
    });
    await (await openJournal(path, { ...fingerprint, model_name: "renamed" }, "resume")).close();
  });

  test("lend their losses to another search of the same model on the same text, and to no other", () => {
    const other = { ...fingerprint, search: { strategy: "forward", objective: "nll" } };
    expect(() => requireSameNumbers(path, fingerprint, other)).not.toThrow();
    expect(() => requireSameNumbers(path, fingerprint, { ...other, calibration_hash: "y" })).toThrow(
      /^Cannot take losses from journal .* calibration_hash \(journal: c, now: y\)$/,
    );
  });

  test("a resume needs a journal", async () => {
    await expect(openJournal(path, fingerprint, "resume")).rejects.toThrow(/no such file/);
    await written();
    await truncate(path, 0);
    const journal = await openJournal(path, fingerprint, "resume");
    await journal.close();
    expect((await readJournal(path))?.fingerprint).toEqual(fingerprint);
  });

  test.runIf(process.platform === "linux")("a full disk is a runtime failure", async () => {
    const failure = expect(openJournal("/dev/full", fingerprint, "fresh")).rejects;
    await failure.toThrow(RuntimeFailure);
    await expect(openJournal("/dev/full", fingerprint, "fresh")).rejects.toThrow("the disk is full");
  });
});

test("knownSequences() joins lines on one pattern: the first loss stays, KL may come later", () => {
  const later: JournalEntry = { ...entry("FSFF", 7), sequences: [{ index: 0, loss: 7, tokens: 7, kl: 0.5 }] };
  const known = knownSequences([...entries, later]);
  expect([...known.keys()]).toEqual(["FFFF", "FSFF", "FFSF"]);
  expect([...(known.get("FSFF") ?? [])]).toEqual([
    [0, { index: 0, loss: 2.5, tokens: 7, kl: 0.5 }],
    [3, { index: 3, loss: 3.5, tokens: 7 }],
  ]);
});

describe("a damaged journal", () => {
  test("is found by any changed digit, and the line is named", async () => {
    await written();
    const lines = (await readFile(path, "utf8")).split("\n");
    for (const [index, line] of lines.slice(0, -1).entries()) {
      for (const { 0: digit, index: at = 0 } of line.matchAll(/\d/g)) {
        const other = String((Number(digit) + 1) % 10);
        const changed = lines.with(index, line.slice(0, at) + other + line.slice(at + 1));
        await writeFile(path, changed.join("\n"));
        const error = await readJournal(path).catch((reason: unknown) => reason);
        expect(error, `digit ${at} of line ${index + 1}`).toBeInstanceOf(InputError);
        expect(error).toMatchObject({ message: expect.stringContaining(`line ${index + 1}`) });
      }
    }
  });

  test("is found by a line that was put in without a checksum", async () => {
    await written();
    await appendFile(path, `${JSON.stringify(entry("FSSF", 3))}\n`);
    await expect(readJournal(path)).rejects.toThrow(/line 5 is not as it was written: it has no checksum/);
  });

  test("of an earlier version is read as it is, and goes on with checksums", async () => {
    await written();
    const old = (await readFile(path, "utf8")).replaceAll(/,"checksum":"[0-9a-f]{8}"/g, "");
    await writeFile(path, old);
    expect((await readJournal(path))?.entries).toEqual(entries);
    const journal = await openJournal(path, fingerprint, "resume");
    await journal.append(entry("FSSF", 3));
    await journal.close();
    expect((await readJournal(path))?.entries).toHaveLength(4);
    await writeFile(path, (await readFile(path, "utf8")).replace('"loss":3,', '"loss":2,'));
    await expect(readJournal(path)).rejects.toThrow(/line 5 is not as it was written: its checksum does not match/);
  });

  test.each(["NaN", "Infinity", "1e999", "null"])("a loss of %s is refused", async (value) => {
    await written();
    const old = (await readFile(path, "utf8")).replaceAll(/,"checksum":"[0-9a-f]{8}"/g, "");
    await writeFile(path, old.replace('"loss":2.5,', `"loss":${value},`));
    await expect(readJournal(path)).rejects.toThrow(/line 3/);
  });
});

describe("requireAgreement()", () => {
  const one = { path: "one", entries };

  test("lets other devices' rounding pass", () => {
    expect(() => requireAgreement([one, { path: "two", entries: [entry("FSFF", 2.50001)] }], "float32")).not.toThrow();
  });

  test("names pattern, sequence and both values", () => {
    const changed = { path: "two", entries: [entry("FFSF", 1 / 3), entry("FSFF", 2.6)] };
    expect(() => requireAgreement([one, changed], "float32")).toThrow(
      'Journals contradict each other on sequence 0 with pattern FSFF: the loss is 2.5 in "one" and 2.6 in "two"',
    );
  });

  test("compares tokens too", () => {
    const first = entry("FFFF", 0.1 + 0.2);
    const other = { ...first, sequences: first.sequences.map((sequence) => ({ ...sequence, tokens: 8 })) };
    expect(() => requireAgreement([one, { path: "two", entries: [other] }], "float32")).toThrow("tokens is 7");
  });
});
