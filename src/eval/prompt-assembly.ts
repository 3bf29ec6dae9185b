/**
 * From an item to the ids that a model is given: the chat template or none, then the answer prefix, exactly one BOS.
 * More than one BOS has been seen to turn a comparison of two attentions around (evaluation.md has the case), so it is
 * no warning.
 */

import { commonPrefix } from "../base/common-prefix.ts";
import { InputError, UsageError } from "../base/errors.ts";
import { hashBytes } from "../base/files.ts";
import type { Tokenizer } from "../checkpoint/tokenizer/tokenizer.ts";
import { readText } from "../formats/text-file.ts";
import type { EvalItem, ItemPrompt } from "./item.ts";
import { CLOSING, leavesThoughtOpen, type SeparatedAnswer, separateThought } from "./thinking.ts";

export interface AssembledPrompt {
  ids: number[];
  /** SHA-256 over the ids as little-endian 32-bit integers: what pairs the arms and keys the journal. */
  sha256: string;
}

/** Ids of prompt and gold answer together; the loss is taken over the ids from `scoredFrom` on. */
interface AssembledAnswer {
  ids: number[];
  /**
   * At most the length of the prompt, with which `ids` agree up to here: a last blank of the prompt may be one token with
   * the first word of the answer.
   */
  answerStart: number;
  /** `answerStart`, or more in thinking mode: there the closed thought and the answer prefix lead the answer. */
  scoredFrom: number;
}

/** Continuations of a multiple choice: all begin with the ids of `shared`, then each label has its own. */
interface AssembledChoices {
  /** Prompt and whatever leads the label ("The correct answer is ("). One prefill of this scores all labels. */
  shared: number[];
  /** Ids of each label of `item.choices`, in order; more than one id where the tokenizer splits a label. */
  options: number[][];
}

export interface AssemblySettings {
  /**
   * "auto" (the checkpoint's, or the preset for DeepSeek-V3.2's tokenizer, or none), "none", "deepseek-v3.2", or the path
   * of a Jinja file. Default "auto".
   */
  chatTemplate?: string;
  /** Chat models think before they answer. The answer prefix is left out then: it would come before the thought. */
  thinking?: boolean;
}

/** Ids of prompts that are kept until they are asked for: 128 MiB of them. */
const MOST_AHEAD = 32 << 20;

const DEEPSEEK_USER = "<｜User｜>";
const DEEPSEEK_ASSISTANT = "<｜Assistant｜>";

/** Turns of DeepSeek-V3.2 (its `encoding/encoding_dsv32.py`); the checkpoint ships no template. */
export const deepseekTemplate =
  "{{ bos_token }}{% for message in messages %}" +
  `{% if message['role'] == 'user' %}{{ '${DEEPSEEK_USER}' + message['content'] }}` +
  `{% elif message['role'] == 'assistant' %}{{ '${DEEPSEEK_ASSISTANT}</think>' + message['content'] + eos_token }}` +
  "{% else %}{{ message['content'] }}{% endif %}{% endfor %}" +
  `{{ '${DEEPSEEK_ASSISTANT}' + ('<think>' if thinking else '</think>') }}`;

/** How templates are told: GLM's name for it and DeepSeek's. */
const toldToThink = (thinking: boolean) => ({ enable_thinking: thinking, thinking });

/**
 * @throws InputError for a template that cannot be read or rendered; every method throws it for a prompt that does not
 *   have exactly one BOS (none, where the tokenizer has none)
 * @throws UsageError for thinking without a template
 */
export async function openPromptAssembly(
  tokenizer: Tokenizer,
  { chatTemplate = "auto", thinking = false }: AssemblySettings = {},
): Promise<PromptAssembly> {
  const [name, template] = await chooseTemplate(tokenizer, chatTemplate);
  if (thinking && template === undefined) {
    throw new UsageError("--thinking needs a chat template, and none is used", {
      hint: chatTemplate === "none" ? "leave --chat-template none out" : "give one with --chat-template FILE",
    });
  }
  return new PromptAssembly(tokenizer, name, template, thinking);
}

async function chooseTemplate(tokenizer: Tokenizer, wanted: string): Promise<[string, string | undefined]> {
  if (wanted === "none") return ["none", undefined];
  if (wanted === "deepseek-v3.2") {
    requireDeepseekTokens(tokenizer);
    return [wanted, deepseekTemplate];
  }
  if (wanted !== "auto") return [wanted, await readText(wanted, `chat template "${wanted}"`)];
  if (tokenizer.chatTemplate !== undefined) return ["model", tokenizer.chatTemplate];
  if (tokenizer.idOf(DEEPSEEK_USER) !== undefined) return ["deepseek-v3.2", deepseekTemplate];
  return ["none", undefined];
}

function requireDeepseekTokens(tokenizer: Tokenizer): void {
  for (const token of [DEEPSEEK_USER, DEEPSEEK_ASSISTANT]) {
    if (tokenizer.idOf(token) !== undefined) continue;
    throw new InputError(`The preset deepseek-v3.2 does not fit this model: its tokenizer has no token ${token}`, {
      hint: "give --chat-template auto, none, or a file",
    });
  }
}

export class PromptAssembly {
  /** For the record: "none", "model", "deepseek-v3.2", or the file's path. */
  readonly template: string;
  /** SHA-256 of the template's text; undefined without one. */
  readonly templateHash: string | undefined;
  /** Tokens that BOS and template add to a prompt. */
  readonly wrapperTokens: number;
  /** The token of a line break. */
  readonly lineBreakId: number | undefined;
  /** What a reader of the scores has to know about the template. */
  readonly notes: readonly string[];
  readonly #tokenizer: Tokenizer;
  readonly #template: string | undefined;
  readonly #thinking: boolean;
  /** Prompts end within a thought. */
  readonly #opened: boolean;
  readonly #closingId: number | undefined;
  /** The prompt that was encoded last: its gold answer is asked for next, and a long prompt takes seconds. */
  #last: { prompt: ItemPrompt; thinking: boolean; ids: readonly number[] } | undefined;
  /** Prompts that were encoded ahead, by what they are made of. */
  readonly #ahead = new Map<string, Int32Array>();
  #idsAhead = 0;

  constructor(tokenizer: Tokenizer, name: string, source: string | undefined, thinking: boolean) {
    this.#tokenizer = tokenizer;
    this.template = name;
    this.#template = source;
    this.#thinking = thinking;
    this.templateHash = source === undefined ? undefined : hashBytes(source);
    this.lineBreakId = tokenizer.encodePlain("\n").at(-1);
    this.#closingId = tokenizer.idOf(CLOSING);
    const probe = { user: "x", answerPrefix: "", chat: true };
    const [without, told] = [this.#render(probe, false), this.#render(probe, thinking)];
    this.#opened = leavesThoughtOpen(told);
    this.notes = [];
    if (thinking && told === without && !this.#opened) {
      this.notes = [
        "The chat template knows neither enable_thinking nor thinking: whether the model thinks is up to the model",
      ];
    } else if (!thinking && this.#opened) {
      this.notes = [
        "The chat template has the model think, asked or not: answers are scored with their thoughts (see --thinking)",
      ];
    }
    // Of the gold answer's prompt too, whose thought is closed.
    const longest = Math.max(...[thinking, false].map((told) => this.#encode(probe, "", "of a probe", told).length));
    this.wrapperTokens = longest - tokenizer.encodePlain("x").length;
  }

  prompt(item: EvalItem): AssembledPrompt {
    const { prompt } = item;
    const key = this.#ahead.size === 0 ? undefined : keyOf(prompt);
    const kept = key === undefined ? undefined : this.#ahead.get(key);
    if (key === undefined || kept === undefined) return this.turn(prompt, whereOf(item));
    this.#ahead.delete(key);
    this.#idsAhead -= kept.length;
    const ids = [...kept];
    if (!this.#thinks(prompt)) this.#last = { prompt, thinking: false, ids: [...kept] };
    return { ids, sha256: hashIds(ids) };
  }

  /** The ids of a prompt that will be asked for later, and is not encoded again then, as far as there is room to keep it. */
  ahead(item: EvalItem): ArrayLike<number> {
    const key = keyOf(item.prompt);
    const kept = this.#ahead.get(key);
    if (kept !== undefined) return kept;
    const { ids } = this.turn(item.prompt, whereOf(item));
    if (this.#idsAhead + ids.length <= MOST_AHEAD) {
      this.#ahead.set(key, Int32Array.from(ids));
      this.#idsAhead += ids.length;
    }
    return ids;
  }

  /** The prompt of a second turn (`EvalItem.followUp`). */
  turn(prompt: ItemPrompt, where: string): AssembledPrompt {
    const thinks = this.#thinks(prompt);
    const ids = this.#encode(thinks ? { ...prompt, answerPrefix: "" } : prompt, "", where, thinks);
    return { ids, sha256: hashIds(ids) };
  }

  /** In thinking mode too the gold answer follows the prefix, after a thought that is closed at once. */
  answer(item: EvalItem): AssembledAnswer {
    const { prompt, goldAnswer } = item;
    const closed = this.#encode(prompt, "", whereOf(item), false);
    const ids = this.#encode(prompt, this.#following(prompt, goldAnswer), whereOf(item), false);
    const scoredFrom = commonPrefix([closed, ids]);
    if (!this.#thinks(prompt)) return { ids, answerStart: scoredFrom, scoredFrom };
    return { ids, answerStart: Math.min(scoredFrom, commonPrefix([this.prompt(item).ids, ids])), scoredFrom };
  }

  /** The answer within what was generated after a prompt: in thinking mode what follows the thought. */
  separate(prompt: ItemPrompt, generated: { tokens: readonly number[]; text: string }): SeparatedAnswer {
    if (!this.#thinks(prompt)) return { answer: generated.text };
    return separateThought(generated, this.#opened, this.#closingId, (ids) => this.#tokenizer.decode(ids));
  }

  #thinks({ chat }: ItemPrompt): boolean {
    return this.#thinking && chat && this.#template !== undefined;
  }

  choices(item: EvalItem): AssembledChoices {
    const { prompt, choices = [], choiceLead = "" } = item;
    const lead = this.#following(prompt, choiceLead);
    const all = choices.map((label) => this.#encode(prompt, lead + label, whereOf(item), false));
    const shared = Math.min(commonPrefix(all), ...all.map((ids) => ids.length - 1));
    return { shared: (all[0] ?? []).slice(0, shared), options: all.map((ids) => ids.slice(shared)) };
  }

  /** A turn of the assistant begins without the blank that parts an answer from a prompt that goes on. */
  #following({ chat, answerPrefix }: ItemPrompt, answer: string): string {
    return chat && this.#template !== undefined && answerPrefix === "" ? answer.trimStart() : answer;
  }

  #render({ user, earlier = [] }: Pick<ItemPrompt, "user" | "earlier">, thinking: boolean): string {
    if (this.#template === undefined) return asTranscript(user, earlier);
    const options = { template: this.#template, variables: toldToThink(thinking) };
    return this.#tokenizer.renderChat([...earlier, { role: "user", content: user }], options);
  }

  #encode(prompt: ItemPrompt, following: string, where: string, thinking: boolean): number[] {
    const tokenizer = this.#tokenizer;
    const { user, earlier, answerPrefix, chat } = prompt;
    if (following === "" && this.#last?.prompt === prompt && this.#last.thinking === thinking)
      return [...this.#last.ids];
    const end = answerPrefix + following;
    const ids =
      chat && this.#template !== undefined
        ? tokenizer.encodeRendered(this.#render(prompt, thinking) + end)
        : tokenizer.encode(asTranscript(user, earlier) + end);
    this.#requireOneBos(ids, where);
    if (following === "") this.#last = { prompt, thinking, ids: [...ids] };
    return ids;
  }

  #requireOneBos(ids: readonly number[], where: string): void {
    const { bosId } = this.#tokenizer;
    if (bosId === undefined) return;
    const found = ids.filter((id) => id === bosId).length;
    if (found === 1 && ids[0] === bosId) return;
    throw new InputError(`The prompt ${where} has ${found} BOS tokens, it must begin with the only one`, {
      hint:
        this.#template === undefined
          ? "does the text contain the token itself?"
          : `does the chat template (${this.template}) write it twice, or the text contain it?`,
    });
  }
}

/** A conversation for a model without a template: a line for whoever speaks, and one for the answer to begin on. */
function asTranscript(user: string, earlier: ItemPrompt["earlier"] = []): string {
  if (earlier.length === 0) return user;
  const turns = [...earlier, { role: "user", content: user }];
  const speaker = (role: string): string => role.charAt(0).toUpperCase() + role.slice(1);
  return `${turns.map(({ role, content }) => `${speaker(role)}: ${content}\n`).join("")}Assistant:\n`;
}

function whereOf({ task, length, id }: EvalItem): string {
  return `of ${task}${length === undefined ? "" : ` (${length} tokens)`}, item ${id},`;
}

/** Tells prompts apart whose items were made anew: a text of a megabyte is hashed in a thousandth of what encoding it takes. */
function keyOf(prompt: ItemPrompt): string {
  return hashBytes(JSON.stringify(prompt));
}

function hashIds(ids: readonly number[]): string {
  const bytes = Buffer.alloc(4 * ids.length);
  for (const [i, id] of ids.entries()) bytes.writeInt32LE(id, 4 * i);
  return hashBytes(bytes);
}
