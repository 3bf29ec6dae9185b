/**
 * What a suite gives and a run scores: items with their prompts, and tasks that know how an output is scored. Suites
 * know no model and no runtime; a run knows no templates and no metrics.
 */

/** A prompt before the model's own wrapping. */
export interface ItemPrompt {
  /** Turns of the conversation before the user's last one. */
  earlier?: readonly { role: "system" | "user" | "assistant"; content: string }[];
  /** The user's turn for a chat model; for a base model the whole prompt but for `answerPrefix`. */
  user: string;
  /** Begins the answer: after the chat template, or after `user` for a base model. "" where a suite has none. */
  answerPrefix: string;
  /** False for tasks that are completed without a template even by chat models (LongBench's few-shot and code tasks). */
  chat: boolean;
}

export interface EvalItem {
  /** Unique within task and length, the same for the same data and seed. */
  id: string;
  task: string;
  /** RULER's target length in tokens; absent where a suite has none. */
  length?: number | undefined;
  prompt: ItemPrompt;
  /** Gold answers, at least one. */
  references: readonly string[];
  /** Text that is scored by teacher forcing after the prompt, with the blank that leads it if the prompt needs one. */
  goldAnswer: string;
  /** Labels of a multiple choice, in order, such as A to D; absent for other tasks. */
  choices?: readonly string[] | undefined;
  /** Multiple choice: `goldAnswer` without its label, such as "\nThe correct answer is (". */
  choiceLead?: string | undefined;
  /** A second turn (LongBench v2 with chain of thought): its output is scored instead of the first one. */
  followUp?: { maxNewTokens: number; prompt(firstOutput: string): ItemPrompt } | undefined;
  /** MRCR: what an answer has to begin with to count at all. */
  requiredStart?: string | undefined;
  /** LongBench's list of classes. */
  classes?: readonly string[] | undefined;
  /** Items that share an article or context, for clustered statistics. */
  cluster?: string | undefined;
  /** Groups that results are also given by: difficulty, length class, domain, language. */
  groups?: Readonly<Record<string, string>> | undefined;
  /** Tokens before and after middle truncation; absent where nothing was cut. */
  truncated?: { before: number; after: number } | undefined;
  /** RULER: tokens before the first answer, and 0 to 1 of the prompt. */
  depth?: { tokens: number; share: number } | undefined;
  /** Generated prompts: wrapper, prompt and the task's own answer budget as a share of the length asked for. */
  fill?: number | undefined;
}

export interface EvalTask {
  name: string;
  /** Changes whenever prompts or scores of the same data would; part of every cache key. */
  version: number;
  /** Such as "string_match_all", "qa_f1": what the table calls the score. */
  metric: string;
  /** Binary scores are 0 or 1 and get McNemar's test; graded ones lie between. */
  scores: "binary" | "graded";
  maxNewTokens: number;
  /** Strings that end a generation. */
  stop: readonly string[];
  /**
   * The token of a line break ends a generation, and neither it nor an end of sequence may come first: LongBench's samsum.
   */
  oneLine?: boolean | undefined;
  /** An item with an empty output is scored under no arm, as LongBench v2's own code leaves it out. */
  dropsEmpty?: boolean | undefined;
  /** 0 to 1. The output is the text after `answerPrefix`. */
  score(output: string, item: EvalItem): number;
}

/** A task whose data is not at hand: named in the table, never left out silently. */
export interface SkippedTask {
  task: string;
  /** One sentence: what is missing and which flag gives it. */
  reason: string;
}

/** A suite within a joined one. */
export interface SuiteSection {
  name: string;
  version: number;
  tasks: readonly string[];
}

export interface Suite {
  name: string;
  version: number;
  tasks: readonly EvalTask[];
  /** Suites that were joined into this one, by the names of their tasks; absent for a suite that is one. */
  sections?: readonly SuiteSection[] | undefined;
  skipped: readonly SkippedTask[];
  /** What a reader of the scores has to know: a haystack of one's own, a ratio that is not the official one. */
  notes: readonly string[];
  /** Items that `items` will give, where that is known beforehand. */
  total?: number | undefined;
  /** Records that were bad and left out under --skip-bad; complete once `items` ends. */
  bad: { where: string; problem: string }[];
  /** Items in a fixed order, made or read one at a time; the caller may stop early. */
  items(): AsyncIterable<EvalItem>;
}

/** Counts and cuts tokens of plain text, without BOS: the model's own tokenizer. */
export interface TokenCounter {
  /** Special tokens that the tokenizer puts before a text: LongBench's max_length counts them. Default 0. */
  readonly specialTokens?: number;
  encode(text: string): readonly number[];
  decode(ids: readonly number[]): string;
}
