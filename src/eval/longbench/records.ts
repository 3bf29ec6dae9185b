/** LongBench's records, under the names that its copies give their fields. */
import { z } from "zod";
import { listOfStrings as strings } from "../records/columns.ts";

const id = z.union([z.string(), z.number().transform(String)]).nullish();

const optionalNumber = z.preprocess((value) => (value === "" ? undefined : value), z.coerce.number().nullish());

export const longbenchFields = [["context"], ["answers", "answer"], ["input", "question"]] as const;

export const longbenchSchema = z
  .looseObject({
    input: z.string().optional(),
    question: z.string().optional(),
    context: z.string(),
    answers: strings.optional(),
    answer: strings.optional(),
    length: optionalNumber,
    dataset: z.string().nullish(),
    language: z.string().nullish(),
    all_classes: z.preprocess((value) => (value === "" ? null : value), strings.nullish()),
    _id: id,
    id,
  })
  .transform((record) => ({
    input: record.input ?? record.question ?? "",
    context: record.context,
    answers: record.answers ?? record.answer ?? [],
    length: record.length ?? undefined,
    dataset: record.dataset ?? undefined,
    language: record.language ?? undefined,
    classes: record.all_classes ?? undefined,
    id: record._id ?? record.id ?? undefined,
  }));

export type LongbenchRecord = z.infer<typeof longbenchSchema>;

export const labels = ["A", "B", "C", "D"] as const;

/** A letter, in either case, or a 0-based index. */
const answerLetter = z
  .union([z.string(), z.int()])
  .transform((value) => {
    const text = String(value).trim();
    return /^[0-3]$/.test(text) ? labels[Number(text)] : labels.find((letter) => letter === text.toUpperCase());
  })
  .refine((letter) => letter !== undefined, { message: "expected A, B, C, D, or 0 to 3" });

export const longbenchV2Fields = [
  ["context"],
  ["question", "input"],
  ["answer"],
  ["choice_A", "choices"],
  ["choice_B", "choices"],
  ["choice_C", "choices"],
  ["choice_D", "choices"],
] as const;

export const longbenchV2Schema = z
  .looseObject({
    context: z.string(),
    question: z.string().optional(),
    input: z.string().optional(),
    choice_A: z.string().optional(),
    choice_B: z.string().optional(),
    choice_C: z.string().optional(),
    choice_D: z.string().optional(),
    choices: strings.optional(),
    answer: answerLetter,
    domain: z.string().nullish(),
    sub_domain: z.string().nullish(),
    difficulty: z.enum(["easy", "hard"]).nullish(),
    length: z.enum(["short", "medium", "long"]).nullish(),
    _id: id,
    id,
  })
  .transform((record) => ({
    context: record.context,
    question: record.question ?? record.input ?? "",
    choices: record.choices ?? [record.choice_A, record.choice_B, record.choice_C, record.choice_D],
    answer: record.answer ?? "A",
    domain: record.domain ?? undefined,
    subDomain: record.sub_domain ?? undefined,
    difficulty: record.difficulty ?? undefined,
    length: record.length ?? undefined,
    id: record._id ?? record.id ?? undefined,
  }))
  .refine(({ choices }) => choices.length === 4 && choices.every((choice) => choice !== undefined), {
    message: "expected 4 choices",
  });

export type LongbenchV2Record = z.infer<typeof longbenchV2Schema>;
