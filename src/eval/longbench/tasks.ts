/** LongBench's 21 tasks in the order of its paper. */
import type { EvalTask } from "../item.ts";
import type { CodeRatio } from "./options.ts";
import { longbenchPrompts } from "./prompts.ts";
import { rougeL } from "./rouge.ts";
import {
  classificationScore,
  codeSimilarity,
  countScore,
  firstLine,
  qaF1,
  qaF1Chinese,
  retrievalScore,
  rougeChinese,
} from "./scoring.ts";
import type { Segment } from "./segmentation.ts";

/** Changes whenever a prompt or a score does. */
export const LONGBENCH_VERSION = 2;

/** Scores an output against one of the answers. */
type Scorer = (prediction: string, gold: string, classes: readonly string[], tools: ScoringTools) => number;

const scorers = {
  qa_f1: qaF1,
  qa_f1_zh: (prediction, gold, _, tools) => qaF1Chinese(prediction, gold, segmentOf(tools)),
  rouge: rougeL,
  rouge_zh: (prediction, gold, _, tools) => rougeChinese(prediction, gold, segmentOf(tools)),
  classification: classificationScore,
  count: countScore,
  retrieval: (prediction, gold) => retrievalScore(prediction, gold, "Paragraph "),
  retrieval_zh: (prediction, gold) => retrievalScore(prediction, gold, "段落"),
  code_sim: (prediction, gold, _, { codeRatio }) => codeSimilarity(prediction, gold, codeRatio),
} satisfies Record<string, Scorer>;

export type LongbenchMetric = keyof typeof scorers;

type LongbenchTaskName = keyof typeof longbenchPrompts;

export interface LongbenchTask extends EvalTask {
  name: LongbenchTaskName;
  category: string;
  language: "en" | "zh" | "code";
  prompt: string;
  /** False for the tasks that chat models too are to continue. */
  chat: boolean;
  /** In LongBench-E. */
  inE: boolean;
}

/** What metrics need beside the texts. */
export interface ScoringTools {
  codeRatio: CodeRatio;
  /** Absent where jieba is not installed; the tasks that need it are skipped then. */
  segment?: Segment | undefined;
}

type Row = [
  LongbenchTaskName,
  category: string,
  maxNewTokens: number,
  LongbenchMetric,
  LongbenchTask["language"],
  inE?: "E",
];

const rows: readonly Row[] = [
  ["narrativeqa", "single-doc QA", 128, "qa_f1", "en"],
  ["qasper", "single-doc QA", 128, "qa_f1", "en", "E"],
  ["multifieldqa_en", "single-doc QA", 64, "qa_f1", "en", "E"],
  ["multifieldqa_zh", "single-doc QA", 64, "qa_f1_zh", "zh"],
  ["hotpotqa", "multi-doc QA", 32, "qa_f1", "en", "E"],
  ["2wikimqa", "multi-doc QA", 32, "qa_f1", "en", "E"],
  ["musique", "multi-doc QA", 32, "qa_f1", "en"],
  ["dureader", "multi-doc QA", 128, "rouge_zh", "zh"],
  ["gov_report", "summarization", 512, "rouge", "en", "E"],
  ["qmsum", "summarization", 512, "rouge", "en"],
  ["multi_news", "summarization", 512, "rouge", "en", "E"],
  ["vcsum", "summarization", 512, "rouge_zh", "zh"],
  ["trec", "few-shot", 64, "classification", "en", "E"],
  ["triviaqa", "few-shot", 32, "qa_f1", "en", "E"],
  ["samsum", "few-shot", 128, "rouge", "en", "E"],
  ["lsht", "few-shot", 64, "classification", "zh"],
  ["passage_count", "synthetic", 32, "count", "en", "E"],
  ["passage_retrieval_en", "synthetic", 32, "retrieval", "en", "E"],
  ["passage_retrieval_zh", "synthetic", 32, "retrieval_zh", "zh"],
  ["lcc", "code", 64, "code_sim", "code", "E"],
  ["repobench-p", "code", 64, "code_sim", "code", "E"],
];

/** Few-shot and code: completed without a template even by chat models. */
const completed = new Set<LongbenchTaskName>(["trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"]);
const scoredOnFirstLine = new Set<LongbenchTaskName>(["trec", "triviaqa", "samsum", "lsht"]);

export function needsSegmentation({ metric }: EvalTask): boolean {
  return metric === "qa_f1_zh" || metric === "rouge_zh";
}

export function longbenchTasks(tools: ScoringTools): LongbenchTask[] {
  return rows.map(([name, category, maxNewTokens, metric, language, inE]) => ({
    name,
    category,
    version: LONGBENCH_VERSION,
    metric,
    scores: "graded",
    maxNewTokens,
    language,
    prompt: longbenchPrompts[name],
    chat: !completed.has(name),
    inE: inE !== undefined,
    stop: [],
    // The model would continue with another dialogue.
    oneLine: name === "samsum",
    score(output, { references, classes = [] }) {
      const prediction = scoredOnFirstLine.has(name) ? firstLine(output) : output;
      return longbenchScore(metric, prediction, references, classes, tools);
    },
  }));
}

/** The best score of an output against any of the answers; what a task cuts off its outputs is cut off before. */
export function longbenchScore(
  metric: LongbenchMetric,
  prediction: string,
  references: readonly string[],
  classes: readonly string[],
  tools: ScoringTools,
): number {
  return Math.max(0, ...references.map((gold) => scorers[metric](prediction, gold, classes, tools)));
}

function segmentOf({ segment }: ScoringTools): Segment {
  if (segment === undefined) throw new Error("a Chinese metric without segmentation");
  return segment;
}
