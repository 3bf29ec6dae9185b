/**
 * From an item to the ids that a model is given: the chat template or none, the answer prefix behind it, exactly one BOS.
 */
import type { Tokenizer } from "../checkpoint/tokenizer.ts";
import type { EvalItem, ItemPrompt } from "./item.ts";

export interface AssembledPrompt {
  ids: number[];
  /** SHA-256 over the ids as little-endian 32-bit integers: what pairs the arms and keys the journal. */
  sha256: string;
}

/** Ids of prompt and gold answer together; the loss is taken over the ids from `answerStart` on. */
export interface AssembledAnswer {
  ids: number[];
  /** At most the length of the prompt: a last blank of the prompt may be one token with the first word of the answer. */
  answerStart: number;
}

/** Continuations of a multiple choice: all begin with the ids of `shared`, then each label has its own. */
export interface AssembledChoices {
  /** Prompt and whatever leads the label ("The correct answer is ("). One prefill of this scores all labels. */
  shared: number[];
  /** Ids of each label of `item.choices`, in order; more than one id where the tokenizer splits a label. */
  options: number[][];
}

export interface PromptAssembly {
  /** For the record: "none", "model", "deepseek-v3.2", or the file's path. */
  readonly template: string;
  /** SHA-256 of the template's text; undefined without one. */
  readonly templateHash: string | undefined;
  /** Tokens that BOS and template add to a prompt. */
  readonly wrapperTokens: number;
  prompt(item: EvalItem): AssembledPrompt;
  /** The prompt of a second turn (`EvalItem.followUp`). */
  turn(prompt: ItemPrompt, where: string): AssembledPrompt;
  answer(item: EvalItem): AssembledAnswer;
  choices(item: EvalItem): AssembledChoices;
}

/**
 * @param chatTemplate "auto" (the checkpoint's, or the preset for DeepSeek-V3.2's tokenizer, or none), "none",
 *   "deepseek-v3.2", or the path of a Jinja file
 * @throws InputError for a template that cannot be read or rendered; every method throws it for a prompt that does not
 *   have exactly one BOS (none, where the tokenizer has none)
 */
export async function openPromptAssembly(_tokenizer: Tokenizer, _chatTemplate = "auto"): Promise<PromptAssembly> {
  throw new Error("not built yet");
}
