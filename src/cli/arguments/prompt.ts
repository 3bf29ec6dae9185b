/** The prompt of `run`: from one place, as text or as ids. */
import process from "node:process";
import { text as readStream } from "node:stream/consumers";
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { readText } from "../../formats/text-file.ts";
import { parseJson } from "../../formats/validation.ts";
import { type Flags, group, option } from "./declared-option.ts";

export const promptOptions = group(
  "Prompt:",
  option("--prompt <text>", "the prompt (default: stdin)"),
  option("--prompt-file <file>", "read the prompt from a text file"),
  option("--tokens-file <file>", "take a JSON array of token ids as the prompt, as they are"),
  option("--chat", "put the prompt into the model's chat template, as the user's message"),
);

type PromptFlags = Flags<typeof promptOptions>;

/** Text that is still to be tokenized, or ids that are used as they are. */
export type Prompt = { text: string } | { ids: number[] };

/** @throws UsageError where no place or several are named */
export async function readPrompt({ prompt, promptFile, tokensFile, chat }: PromptFlags): Promise<Prompt> {
  const named = Object.entries({ "--prompt": prompt, "--prompt-file": promptFile, "--tokens-file": tokensFile }).filter(
    ([, value]) => value !== undefined,
  );
  if (named.length > 1) throw new UsageError(`${named.map(([flag]) => flag).join(" and ")} exclude each other`);
  if (prompt !== undefined) return { text: prompt };
  if (promptFile !== undefined) return { text: await readText(promptFile, `prompt file "${promptFile}"`) };
  if (tokensFile !== undefined) {
    if (chat === true) throw new UsageError("--chat needs text: token ids are used as they are");
    const what = `Tokens file "${tokensFile}"`;
    const text = await readText(tokensFile, `tokens file "${tokensFile}"`);
    return { ids: parseJson(text, z.array(z.int()), what, "it holds a JSON array of token ids") };
  }
  if (process.stdin.isTTY) {
    throw new UsageError("There is no prompt", {
      hint: "give --prompt, --prompt-file or --tokens-file, or pipe text in",
    });
  }
  return { text: await readStream(process.stdin) };
}
