/** What a generated question looks like to whoever asks it: the RULER record without its file fields. */

/** One question over a context. The prompt is `input + answerPrefix`; `outputs` are the gold strings. */
export interface Task {
  /** Instruction, context and question. */
  input: string;
  /** The start of the answer, which a base model must be given; follows `input` (or the chat turn) directly. */
  answerPrefix: string;
  /** Every string that a right answer contains. */
  outputs: string[];
}
