import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type QuestionSet, readHotpotQa, readSquad } from "../../../src/eval/ruler/question-answering.ts";
import { temporaryFolder } from "../../temporary-folder.ts";

const folder = temporaryFolder("test");

async function file(name: string, content: string): Promise<string> {
  await writeFile(join(folder, name), content);
  return join(folder, name);
}

function content({ documents, questions }: QuestionSet): Omit<QuestionSet, "hash"> {
  return { documents, questions };
}

test("SQuAD from the hub is what dev-v2.0.json is", async () => {
  const qa = (question: string, texts: string[], impossible = false): object => ({
    question,
    id: "1",
    is_impossible: impossible,
    answers: texts.map((text) => ({ text, answer_start: 0 })),
  });
  const own = await file(
    "dev-v2.0.json",
    JSON.stringify({
      version: "v2.0",
      data: [
        {
          title: "Town",
          paragraphs: [
            { context: "Anna lives here.", qas: [qa("Who lives here?", ["Anna"])] },
            {
              context: "Bert lives there.",
              qas: [qa("Who lives there?", ["Bert", "Bert"]), qa("Who left?", [], true)],
            },
          ],
        },
        { title: "Sea", paragraphs: [{ context: "It is wide.", qas: [qa("How is it?", ["wide"])] }] },
      ],
    }),
  );
  const set = await readSquad(own);
  expect(set.questions).toHaveLength(3);
  expect(set.questions[1]).toEqual({
    question: "Who lives there?",
    answers: ["Bert", "Bert"],
    own: [1],
    near: [0],
    cluster: "Town",
  });
  expect(content(await readSquad(join(import.meta.dirname, "fixtures", "squad-rows.parquet")))).toEqual(content(set));
});

test("HotpotQA from the hub is what hotpot_dev_distractor_v1.json is", async () => {
  const context: [string, string[]][] = [
    ["T1", ["One. ", "Two."]],
    ["T2", ["Three."]],
  ];
  const own = await file("hotpot.json", JSON.stringify([{ _id: "1", question: "q?", answer: "a", context }]));
  const columns = { title: context.map(([title]) => title), sentences: context.map(([, sentences]) => sentences) };
  const rows = await file(
    "hotpot.jsonl",
    `${JSON.stringify({ id: "1", question: "q?", answer: "a", context: columns })}\n`,
  );
  const set = await readHotpotQa(own);
  expect(set.documents).toEqual(["T1\nOne. Two.", "T2\nThree."]);
  expect(content(await readHotpotQa(rows))).toEqual(content(set));
});

test("other files are told of with their place and what is taken", async () => {
  const text = await file("a.txt", "words");
  await expect(readSquad(text)).rejects.toThrow(/^SQuAD file ".*a.txt": /);
  const cut = await file("b.json", '{"data":[{"title":"x","paragraphs":[]}');
  await expect(readSquad(cut)).rejects.toThrow(/ends within its array or object/);
  const uneven = { question: "q", answer: "a", context: { title: ["T"], sentences: [] } };
  await expect(readHotpotQa(await file("c.jsonl", JSON.stringify(uneven)))).rejects.toThrow(
    /^HotpotQA file ".*", line 1: "context"/,
  );
});
