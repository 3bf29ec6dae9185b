/** RULER's question answering: the documents of a question among others, from the user's SQuAD or HotpotQA file. */
import { stat } from "node:fs/promises";
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { hashBytes } from "../../base/files.ts";
import { Random } from "../../base/random.ts";
import { hashFile } from "../../base/user-files.ts";
import { openDataSet } from "../../formats/records/record-files.ts";
import { checkShape } from "../../formats/validation.ts";
import type { GeneratorSettings, SampleGenerator } from "../generated/generator.ts";
import { distinct } from "./niah.ts";
import { questionPrompt } from "./templates.ts";

interface Question {
  question: string;
  answers: readonly string[];
  /** Indices of the documents that are always there. */
  own: readonly number[];
  /** Documents that are the first to stand beside them: the other paragraphs of the article. */
  near: readonly number[];
  /** The article, for clustered statistics. */
  cluster?: string;
}

export interface QuestionSet {
  /** SHA-256 of the file. */
  hash: string;
  /** Distinct, sorted. */
  documents: readonly string[];
  questions: readonly Question[];
}

/** An article of dev-v2.0.json. */
const articleSchema = z.looseObject({
  title: z.string().optional(),
  paragraphs: z.array(
    z.looseObject({
      context: z.string(),
      qas: z.array(
        z.looseObject({
          question: z.string(),
          is_impossible: z.boolean().optional(),
          answers: z.array(z.looseObject({ text: z.string() })),
        }),
      ),
    }),
  ),
});

/** A question of SQuAD as the hub has it: one a row, its answers as columns. */
const squadRowSchema = z
  .looseObject({
    title: z.string().nullish(),
    context: z.string(),
    question: z.string(),
    answers: z.union([z.looseObject({ text: z.array(z.string()) }), z.array(z.looseObject({ text: z.string() }))]),
  })
  .transform(({ title, context, question, answers }) => ({
    title: title ?? undefined,
    context,
    question,
    answers: Array.isArray(answers) ? answers.map(({ text }) => text) : answers.text,
  }));

/** A question of HotpotQA, its context in pairs (hotpot_dev_distractor_v1.json) or in columns (the hub). */
const hotpotSchema = z.looseObject({
  question: z.string(),
  answer: z.string(),
  context: z.union([
    z.array(z.tuple([z.string(), z.array(z.string())])),
    z
      .looseObject({ title: z.array(z.string()), sentences: z.array(z.array(z.string())) })
      .refine(({ title, sentences }) => title.length === sentences.length, { message: "as many titles as sentences" })
      .transform(({ title, sentences }) =>
        title.map((name, i): [string, string[]] => [name, (sentences[i] ?? []) as string[]]),
      ),
  ]),
});

interface Asked {
  question: string;
  answers: readonly string[];
}

interface Article {
  title: string | undefined;
  /** Questions by their paragraph, in the order of the file. */
  paragraphs: Map<string, Asked[]>;
}

/**
 * @param path dev-v2.0.json of SQuAD 2.0 (`data[].paragraphs[].qas[]`), or the rows that the hub has of it, in any form
 *   that data files have
 * @throws InputError for anything else
 */
export async function readSquad(path: string): Promise<QuestionSet> {
  const articles: Article[] = [];
  const begin = (title: string | undefined): Article => {
    const article = { title, paragraphs: new Map<string, Asked[]>() };
    articles.push(article);
    return article;
  };
  const ask = ({ paragraphs }: Article, context: string, asked: readonly Asked[]): void => {
    paragraphs.set(context, [...(paragraphs.get(context) ?? []), ...asked]);
  };
  for await (const { where, value } of readValues(path, "SQuAD")) {
    const hint = "it takes dev-v2.0.json of SQuAD 2.0, or the hub's rows with context, question and answers";
    if (value !== null && typeof value === "object" && Object.hasOwn(value, "paragraphs")) {
      const { title = `article ${articles.length}`, paragraphs } = checkShape(value, articleSchema, where, hint);
      const article = begin(title);
      for (const { context, qas } of paragraphs) {
        const possible = qas.filter(({ is_impossible: impossible }) => impossible !== true);
        const texts = possible.map(({ question, answers }) => ({ question, answers: answers.map(({ text }) => text) }));
        ask(article, context, texts);
      }
    } else {
      const { title, context, ...asked } = checkShape(value, squadRowSchema, where, hint);
      // Rows of an article stand together, and so do those of a text without a title.
      const last = articles.at(-1);
      const isSame =
        last !== undefined && last.title === title && (title !== undefined || last.paragraphs.has(context));
      ask(isSame ? last : begin(title), context, [asked]);
    }
  }
  const { documents, indexOf } = indexDocuments(articles.flatMap(({ paragraphs }) => [...paragraphs.keys()]));
  const questions = articles.flatMap(({ title, paragraphs }, article) => {
    const all = [...paragraphs.keys()].map(indexOf);
    return [...paragraphs].flatMap(([context, asked]) => {
      const own = indexOf(context);
      const near = all.filter((index) => index !== own);
      return asked
        .filter(({ answers }) => answers.length > 0)
        .map((one) => ({ ...one, own: [own], near, cluster: title ?? `article ${article}` }));
    });
  });
  return requireQuestions({ hash: await hashOf(path, questions), documents, questions }, path);
}

/**
 * @param path hotpot_dev_distractor_v1.json, or the rows that the hub has of it, in any form that data files have
 * @throws InputError for a file that is not HotpotQA's distractor set
 */
export async function readHotpotQa(path: string): Promise<QuestionSet> {
  const textOf = ([title, sentences]: [string, string[]]): string => `${title}\n${sentences.join("")}`;
  const rows: { question: string; answer: string; texts: string[] }[] = [];
  for await (const { where, value } of readValues(path, "HotpotQA")) {
    const hint = "it takes hotpot_dev_distractor_v1.json, or the hub's rows with question, answer and context";
    const { question, answer, context } = checkShape(value, hotpotSchema, where, hint);
    rows.push({ question, answer, texts: context.map(textOf) });
  }
  const { documents, indexOf } = indexDocuments(rows.flatMap(({ texts }) => texts));
  const questions = rows.map(({ question, answer, texts }) => ({
    question,
    answers: [answer],
    own: [...new Set(texts.map(indexOf))],
    near: [],
  }));
  return requireQuestions({ hash: await hashOf(path, questions), documents, questions }, path);
}

/** The records of a data set; a bad one ends the reading. */
async function* readValues(path: string, name: string): AsyncGenerator<{ where: string; value: unknown }> {
  const { files } = await openDataSet(path, { takesText: false });
  for (const file of files) {
    for await (const record of file.records()) {
      const where = `${name} ${record.where}`;
      if ("problem" in record) throw new InputError(`${where}: ${record.problem}`);
      yield { where, value: record.value };
    }
  }
}

/** Of the file itself, so that a copy of it elsewhere is the same set; of a folder, of what it asks. */
async function hashOf(path: string, questions: readonly Question[]): Promise<string> {
  if ((await stat(path)).isDirectory()) return hashBytes(JSON.stringify(questions));
  return hashFile(path);
}

function indexDocuments(texts: readonly string[]): { documents: string[]; indexOf(text: string): number } {
  const documents = [...new Set(texts)].sort();
  const indices = new Map(documents.map((text, index) => [text, index]));
  return { documents, indexOf: (text) => indices.get(text) ?? -1 };
}

function requireQuestions(set: QuestionSet, path: string): QuestionSet {
  if (set.questions.length === 0) throw new InputError(`File "${path}" has no question with an answer`);
  return set;
}

/** Sample i asks question i, as in RULER. */
export function questionGenerator({ documents, questions }: QuestionSet, { seed }: GeneratorSettings): SampleGenerator {
  const smallest = questions.reduce((most, { own }) => Math.max(most, own.length), 1);
  return {
    smallest,
    available: questions.length,
    officialSteps: { kind: "halving", step: 10, probe: 10, reach: 3 },
    make(random, units, index) {
      const asked = questions[index];
      if (asked === undefined) throw new RangeError(`question ${index} of ${questions.length}`);
      const chosen = chooseDocuments(random, asked, units, documents.length);
      // The same order in every sample, as in RULER.
      const order = Random.forPart(seed, "qa/order").shuffled(chosen.map((document) => documents[document] ?? ""));
      return {
        ...questionPrompt(order, asked.question),
        outputs: asked.answers,
        ...(asked.cluster === undefined ? {} : { cluster: asked.cluster }),
      };
    },
  };
}

/** The question's own documents, those near them, others at random; all of them over and over where that is not enough. */
function chooseDocuments(random: Random, { own, near }: Question, count: number, available: number): number[] {
  if (count >= available) return Array.from({ length: count }, (_, i) => i % available);
  if (count <= own.length) return [...own];
  const beside = count - own.length;
  if (beside <= near.length) return [...own, ...random.sample(near, beside)];
  const taken = new Set([...own, ...near]);
  const free = Array.from({ length: available }, (_, i) => i).filter((i) => !taken.has(i));
  const wanted = count - taken.size;
  return [...own, ...near, ...distinct(random, free.length, wanted).map((i) => free[i] ?? 0)];
}
