/** The live view of an evaluation, on stderr: stdout belongs to results. It reads no keys. */
import { Box, render, Text } from "ink";
import type { ReactElement } from "react";
import { cellText } from "../base/quoted.ts";
import type { EvalProgress } from "../eval/run/progress.ts";
import { describeItems, type EvalDisplay } from "../report/eval/eval-display.ts";
import { formatDuration } from "../report/quantities.ts";

export interface EvalViewProps {
  title: string;
  progress: EvalProgress;
  /** Undefined where nothing is written down. */
  journal: string | undefined;
}

const BAR_WIDTH = 40;

export function EvalView({ title, progress, journal }: EvalViewProps): ReactElement {
  const { scores, items, elapsedSeconds } = progress;
  // Names come from files: ink hands on what a terminal obeys.
  const arms = progress.arms.map(cellText);
  const width = Math.max(...arms.map((name) => name.length));
  return (
    <Box flexDirection="column">
      <Text bold>{cellText(title)}</Text>
      <Text>
        {items.total === undefined ? "" : `${bar(items.done / Math.max(items.total, 1))} `}
        {formatDuration(elapsedSeconds)} elapsed
      </Text>
      <Text>{describeItems(progress)}</Text>
      <Box flexDirection="column" marginTop={1} marginBottom={1}>
        {arms.map((name, arm) => {
          const score = scores[arm];
          const baseline = scores[0];
          const change = score === undefined || baseline === undefined ? 0 : 100 * (score - baseline);
          return (
            // biome-ignore lint/suspicious/noArrayIndexKey: an arm's place is its identity, names may repeat
            <Text key={arm}>
              {name.padEnd(width)} {score === undefined ? "    -" : (100 * score).toFixed(1).padStart(5)}
              {arm === 0 ? "  baseline" : `  ${change < 0 ? "" : "+"}${change.toFixed(1)} points so far`}
            </Text>
          );
        })}
      </Box>
      <Text dimColor>
        {journal === undefined
          ? "Ctrl-C stops; without -o nothing is saved"
          : `Ctrl-C saves; journal ${cellText(journal)}`}
      </Text>
    </Box>
  );
}

function bar(share: number): string {
  const full = Math.round(share * BAR_WIDTH);
  return `[${"#".repeat(full)}${".".repeat(BAR_WIDTH - full)}]`;
}

/** Opens the view on a terminal; it stays there, in its last state, when closed. */
export function openEvalView(terminal: NodeJS.WriteStream, title: string, journal: string | undefined): EvalDisplay {
  let instance: ReturnType<typeof render> | undefined;
  const show = (progress: EvalProgress): void => {
    const view = <EvalView title={title} progress={progress} journal={journal} />;
    if (instance !== undefined) instance.rerender(view);
    // stdin is left alone and Ctrl-C stays the process's own signal: it saves.
    else instance = render(view, { stdout: terminal, stderr: terminal, exitOnCtrlC: false, patchConsole: false });
  };
  return {
    show,
    close: (progress) => {
      show(progress);
      instance?.unmount();
    },
  };
}
