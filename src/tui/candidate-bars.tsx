/** What this step tries: each candidate's loss above the step's pattern as a bar with its error, the best first. */
import { Box, Text } from "ink";
import type { ReactElement } from "react";
import { formatError, formatLossChange } from "../report/quantities.ts";
import { describeLayers } from "../report/search/search-display.ts";
import type { Candidate } from "../search/events.ts";
import { isSameFlip, type SearchProgress } from "../search/progress.ts";
import { errorBar } from "./bars.ts";

/** @param lines candidates that there is room for; a model has up to 77, and the best are what matters */
export function CandidateBars(props: { progress: SearchProgress; lines: number; width: number }): ReactElement {
  const { progress, lines, width } = props;
  const { candidates, trying, loss = 0 } = progress;
  const ranked = candidates.toSorted((left, right) => left.loss - right.loss);
  const shown = ranked.slice(0, ranked.length > lines ? lines - 1 : lines);
  const more = ranked.length - shown.length;
  const names = shown.map((candidate) => describeLayers(candidate.flipped));
  const nameWidth = Math.min(24, Math.max(8, ...names.map((name) => name.length)));
  const most = Math.max(...shown.map((one) => one.loss - loss + (one.changeError ?? 0)), 0);
  const title = trying.length === 0 ? "candidates of this step" : `trying ${describeLayers(trying)}`;
  return (
    <Box flexDirection="column">
      <Text wrap="truncate-end">
        {title}
        {shown.length === 0 ? ": nothing measured yet" : "; loss above this step's pattern, lowest first"}
      </Text>
      {shown.map((candidate, index) => (
        <CandidateLine
          key={candidate.flipped.join()}
          candidate={candidate}
          name={(names[index] ?? "").padEnd(nameWidth).slice(0, nameWidth)}
          change={candidate.loss - loss}
          most={most}
          width={width - nameWidth}
          sequences={progress.sequences}
          isBest={progress.best !== undefined && isSameFlip(candidate, progress.best)}
        />
      ))}
      {more > 0 ? <Text dimColor>{`  and ${more} more`}</Text> : null}
    </Box>
  );
}

function CandidateLine(props: {
  candidate: Candidate;
  name: string;
  change: number;
  most: number;
  width: number;
  sequences: number;
  isBest: boolean;
}): ReactElement {
  const { candidate, name, change, most, sequences, isBest } = props;
  const part = candidate.sequences < sequences ? ` ${candidate.sequences}/${sequences} seq.` : "";
  const words = ` ${formatLossChange(change)} ±${formatError(candidate.changeError)}${part}${isBest ? " best" : ""}`;
  // Every line leaves the room of the longest words, so that bars have one scale.
  const bar = errorBar(change, candidate.changeError ?? 0, most, Math.max(4, props.width - 40));
  return (
    <Text wrap="truncate-end" {...(isBest ? { bold: true } : {})}>
      {`  ${name} ${bar}${words}`}
    </Text>
  );
}
