/** The live view of an evaluation, on stderr: stdout belongs to results. It reads no keys and has no colours. */
import { Box, Text } from "ink";
import type { ReactElement } from "react";
import { cellText } from "../base/quoted.ts";
import type { EvalProgress } from "../eval/run/progress.ts";
import { describeItems, type EvalDisplay } from "../report/eval/eval-display.ts";
import { formatDuration } from "../report/quantities.ts";
import { percentBar, progressBar } from "./bars.ts";
import { Kept, openLiveView, type Screen } from "./live-view.tsx";

export interface EvalViewProps extends Screen {
  title: string;
  progress: EvalProgress;
  /** Undefined where nothing is written down. */
  journal: string | undefined;
}

/** Columns of a score and its change. */
const SCORE_WIDTH = 34;

export function EvalView({ title, progress, journal, columns = 80, hasEnded }: EvalViewProps): ReactElement {
  const { arms, scores, items, elapsedSeconds } = progress;
  const names = arms.map((name) => cellText(name));
  const width = Math.min(Math.max(...names.map((name) => name.length)), Math.max(12, columns - SCORE_WIDTH - 12));
  const bar = Math.max(8, Math.min(60, columns - width - SCORE_WIDTH - 4));
  const share = items.total === undefined ? undefined : items.done / Math.max(items.total, 1);
  return (
    <Box flexDirection="column" width={columns}>
      <Text bold wrap="truncate-end">
        {cellText(title)}
      </Text>
      <Text wrap="truncate-end">
        {share === undefined ? "" : `${percentBar(share, columns, 40)}  `}
        {formatDuration(elapsedSeconds)} elapsed
      </Text>
      <Text wrap="truncate-end">{describeItems(progress)}</Text>
      <Box flexDirection="column" marginTop={1}>
        <Text dimColor>mean score so far, out of 100</Text>
        {names.map((name, arm) => {
          const score = scores[arm];
          const baseline = scores[0];
          const change = score === undefined || baseline === undefined ? undefined : 100 * (score - baseline);
          return (
            // biome-ignore lint/suspicious/noArrayIndexKey: an arm's place is its identity, names may repeat
            <Text key={arm} wrap="truncate-end">
              {name.slice(0, width).padEnd(width)} {progressBar(score ?? 0, bar)}{" "}
              {score === undefined ? "    -" : (100 * score).toFixed(1).padStart(5)}
              {arm === 0
                ? "  baseline"
                : change !== undefined && `  ${change < 0 ? "" : "+"}${change.toFixed(1)} points so far`}
            </Text>
          );
        })}
      </Box>
      <Kept where={journal} hasEnded={hasEnded} />
    </Box>
  );
}

/** Opens the view on a terminal; it stays there, in its last state, when closed. */
export function openEvalView(terminal: NodeJS.WriteStream, title: string, journal: string | undefined): EvalDisplay {
  const live = openLiveView<EvalProgress>(terminal, (progress, screen) => (
    <EvalView title={title} progress={progress} journal={journal} {...screen} />
  ));
  return {
    show: live.show,
    close: (progress) => {
      live.show(progress);
      live.close();
    },
  };
}
