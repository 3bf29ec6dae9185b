/** The live view of a distillation, on stderr. It reads no keys and has no colours. */
import { Box, Text } from "ink";
import type { ReactElement } from "react";
import { cellText } from "../base/quoted.ts";
import {
  type DistillDisplay,
  type DistillState,
  describeCarried,
  percent,
} from "../report/distill/distill-progress.ts";
import { formatDuration } from "../report/quantities.ts";
import { percentBar, progressBar } from "./bars.ts";
import { Kept, openLiveView, type Screen } from "./live-view.tsx";

export interface DistillViewProps extends Screen {
  title: string;
  state: DistillState;
  /** Where progress is kept; undefined where nothing is. */
  work: string | undefined;
}

/** Columns of everything in a group's line but its bar. */
const GROUP_WIDTH = 48;

/** Lines of the view that are no groups. */
const FRAME_ROWS = 9;

export function DistillView(props: DistillViewProps): ReactElement {
  const { title, state, work, columns = 80, rows = 24, hasEnded } = props;
  const { steps, total, groups, carried, elapsedSeconds, leftSeconds } = state;
  const share = groups.reduce((sum, { step }) => sum + step, 0) / Math.max(1, total * steps);
  const bar = Math.max(6, Math.min(40, columns - GROUP_WIDTH));
  const room = Math.max(1, rows - FRAME_ROWS);
  const earlier = Math.max(0, groups.length - room);
  const left = leftSeconds === undefined || share >= 1 ? "" : `, about ${formatDuration(leftSeconds)} left`;
  return (
    <Box flexDirection="column" width={columns}>
      <Text bold wrap="truncate-end">
        {cellText(title)}
      </Text>
      <Text wrap="truncate-end">
        {`${percentBar(share, columns, 48)}  ${formatDuration(elapsedSeconds)} elapsed${left}`}
      </Text>
      <Text wrap="truncate-end">
        {carried !== undefined
          ? describeCarried(carried)
          : total === 0
            ? "making hidden states"
            : `group ${groups.length} of ${total}, ${steps} steps each`}
      </Text>
      <Box flexDirection="column" marginTop={1}>
        <Text dimColor wrap="truncate-end">
          {`${"indexers of".padEnd(16)} ${"steps".padEnd(bar)}      KL  attention missed`}
        </Text>
        {earlier === 0 ? null : <Text dimColor>{`${earlier} earlier`}</Text>}
        {groups.slice(earlier).map(({ name, step, divergence, missedFirst, missedBest, kept }) => (
          <Text key={name} wrap="truncate-end">
            {name.padEnd(16)} {progressBar(step / steps, bar)} {divergence?.toFixed(4).padStart(7) ?? "      -"}
            {missedFirst === undefined || missedBest === undefined
              ? ""
              : `  ${percent(missedFirst)} -> ${percent(missedBest)}`}
            {kept === undefined ? "" : " done"}
          </Text>
        ))}
      </Box>
      <Kept where={work} name="work" unless="with --in-memory" hasEnded={hasEnded} />
    </Box>
  );
}

/** Opens the view on a terminal; it stays there, in its last state, when closed. */
export function openDistillView(terminal: NodeJS.WriteStream, title: string, work: string | undefined): DistillDisplay {
  return openLiveView<DistillState>(terminal, (state, screen) => (
    <DistillView title={title} state={state} work={work} {...screen} />
  ));
}
