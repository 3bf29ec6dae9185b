/** RULER's question answering: the documents of a question among others, from the user's SQuAD or HotpotQA file. */
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { hashBytes } from "../../base/files.ts";
import { Random } from "../../base/random.ts";
import { questionPrompt } from "../../corpus/ruler-templates.ts";
import { readText } from "../../formats/text-file.ts";
import { parseJson } from "../../formats/validation.ts";
import type { GeneratorSettings, RulerGenerator } from "./generator.ts";
import { distinct } from "./niah.ts";

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

const squadSchema = z.looseObject({
  data: z.array(
    z.looseObject({
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
    }),
  ),
});

const hotpotSchema = z.array(
  z.looseObject({
    question: z.string(),
    answer: z.string(),
    context: z.array(z.tuple([z.string(), z.array(z.string())])),
  }),
);

/** @throws InputError for a file that is not SQuAD 2.0's (`data[].paragraphs[].qas[]`) */
export async function readSquad(path: string): Promise<QuestionSet> {
  const text = await readText(path, `SQuAD file "${path}"`);
  const { data } = parseJson(text, squadSchema, `SQuAD file "${path}"`, "it is dev-v2.0.json of SQuAD 2.0");
  const { documents, indexOf } = indexDocuments(data.flatMap(({ paragraphs }) => paragraphs.map((p) => p.context)));
  const questions = data.flatMap(({ title, paragraphs }, article) => {
    const all = paragraphs.map(({ context }) => indexOf(context));
    return paragraphs.flatMap(({ context, qas }) => {
      const own = indexOf(context);
      const near = all.filter((index) => index !== own);
      return qas
        .filter(({ is_impossible, answers }) => is_impossible !== true && answers.length > 0)
        .map(({ question, answers }) => ({
          question,
          answers: answers.map((answer) => answer.text),
          own: [own],
          near,
          cluster: title ?? `article ${article}`,
        }));
    });
  });
  return requireQuestions({ hash: hashBytes(text), documents, questions }, path);
}

/** @throws InputError for a file that is not HotpotQA's distractor set */
export async function readHotpotQa(path: string): Promise<QuestionSet> {
  const text = await readText(path, `HotpotQA file "${path}"`);
  const what = `HotpotQA file "${path}"`;
  const data = parseJson(text, hotpotSchema, what, "it is hotpot_dev_distractor_v1.json");
  const textOf = ([title, sentences]: [string, string[]]): string => `${title}\n${sentences.join("")}`;
  const { documents, indexOf } = indexDocuments(data.flatMap(({ context }) => context.map(textOf)));
  const questions = data.map(({ question, answer, context }) => ({
    question,
    answers: [answer],
    own: [...new Set(context.map((entry) => indexOf(textOf(entry))))],
    near: [],
  }));
  return requireQuestions({ hash: hashBytes(text), documents, questions }, path);
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
export function questionGenerator({ documents, questions }: QuestionSet, { seed }: GeneratorSettings): RulerGenerator {
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
