/** The prompt of `run`: from one place, as text or as ids. */
import process from "node:process";
import { text as readStream } from "node:stream/consumers";
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { readText } from "../../formats/text-file.ts";
import { parseJson } from "../../formats/validation.ts";

export interface PromptFlags {
  prompt?: string;
  promptFile?: string;
  tokensFile?: string;
  chat?: boolean;
}

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
