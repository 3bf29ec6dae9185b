/**
 * The live view of a search, on stderr: stdout belongs to results. It reads no keys, so that it needs no raw mode, and
 * has no colours: weight, dimming and inversion are right on light and dark terminals, and every one of them has a letter
 * or a word beside it.
 */
import { Box, Text } from "ink";
import type { ReactElement } from "react";
import { cellText } from "../base/quoted.ts";
import { formatDuration, formatLoss, formatLossChange } from "../report/quantities.ts";
import { describeLayers, describePatterns, type SearchDisplay } from "../report/search/search-display.ts";
import type { SearchProgress } from "../search/progress.ts";
import { percentBar } from "./bars.ts";
import { CandidateBars } from "./candidate-bars.tsx";
import { LayerStrip, stripLines } from "./layer-strip.tsx";
import { Kept, openLiveView, type Screen } from "./live-view.tsx";
import { type CurvePoint, LossCurve } from "./loss-curve.tsx";

export interface SearchViewProps extends Screen {
  title: string;
  progress: SearchProgress;
  /** Undefined where nothing is written down. */
  journal: string | undefined;
  /** Sequences that are computed side by side. */
  sideBySide?: number | undefined;
}

/** From here on candidates and curve stand beside each other. */
const TWO_COLUMNS = 110;
/** Lines that are always there: title, bar, counts, loss, footer, blanks between. */
const FIXED_LINES = 8;
const TALLEST_CURVE = 8;
const MOST_ACCEPTED = 6;

export function SearchView(props: SearchViewProps): ReactElement {
  const { title, progress, journal, sideBySide, rows = 24, columns = 80, hasEnded } = props;
  const { step, steps, isRefining, isResampling } = progress;
  const shown = shownPattern(progress);
  const isWide = columns >= TWO_COLUMNS;
  // Ink clears the whole screen where a view is as high as the terminal.
  const lines = rows - 1 - FIXED_LINES - stripLines(shown.pattern.length, columns);
  const points = curveOf(progress);
  const beside = isWide ? lines : Math.ceil(lines / 2);
  const curve = points.length < 2 || beside < 5 ? 0 : Math.min(TALLEST_CURVE, Math.floor(beside / 2) - 1);
  const accepted = Math.max(0, Math.min(MOST_ACCEPTED + 1, beside - (curve === 0 ? 0 : curve + 2)));
  const listed = Math.max(2, (isWide ? lines : lines - beside) - 1);
  const half = isWide ? Math.floor(columns / 2) - 2 : columns;
  return (
    <Box flexDirection="column" width={columns}>
      <Text wrap="truncate-end">
        <Text bold>{cellText(title)}</Text>
        {step === 0
          ? ": measuring the loss with every indexer"
          : isResampling
            ? ": found; looking whether other text would have led there as well"
            : isRefining
              ? ": refining, looking for better patterns than greedy's"
              : `: step ${step} of ${steps}`}
      </Text>
      <Text wrap="truncate-end">{barLine(progress, columns)}</Text>
      <Text wrap="truncate-end">
        {describeCount(progress)}
        {sideBySide === undefined || sideBySide === 1 ? "" : `, ${sideBySide} sequences at once`}
      </Text>
      <Box marginTop={1}>
        <LayerStrip pattern={shown.pattern} tried={isRefining ? [] : progress.trying} width={columns} />
      </Box>
      <Text wrap="truncate-end">{lossLine(progress, shown)}</Text>
      <Box marginTop={1} flexDirection={isWide ? "row" : "column"} columnGap={4}>
        <Box flexDirection="column" width={half}>
          <CandidateBars progress={progress} lines={listed} width={half} />
        </Box>
        <Box flexDirection="column" width={half}>
          {curve === 0 ? null : <LossCurve points={points} lines={curve} width={half} />}
          <Accepted progress={progress} lines={accepted} />
        </Box>
      </Box>
      <Kept where={journal} hasEnded={hasEnded} />
    </Box>
  );
}

function describeCount({ patterns }: SearchProgress): string {
  const all = describePatterns(patterns);
  return patterns.replayed === 0 ? all : `${all}, ${patterns.replayed} from the journal`;
}

function barLine(progress: SearchProgress, columns: number): string {
  const { layers, patterns, elapsedSeconds, etaSeconds, isResampling } = progress;
  const ran = layers.total > 0 ? layers.done / layers.total : 0;
  // Layers were foreseen on the way of a rehearsal; where the search takes another one, they end before its patterns do.
  const isLate = ran >= 1 && patterns.done < patterns.total;
  const share = isLate ? 0.99 : ran;
  const known = etaSeconds === undefined || isResampling ? "" : `about ${formatDuration(etaSeconds)} left, `;
  const left = isLate ? "nearly done, " : known;
  return `${percentBar(share, columns, 50)}  ${left}${formatDuration(elapsedSeconds)} elapsed`;
}

interface Shown {
  pattern: SearchProgress["pattern"];
  loss: number | undefined;
  /** Number of Full layers; undefined for the pattern that a step departs from. */
  size: number | undefined;
}

/** What a step departs from; while results are refined, the best of the sparsest size that is wanted, not what is tried. */
function shownPattern({ pattern, loss, isRefining, bests, targets }: SearchProgress): Shown {
  const size = Math.min(...targets);
  const best = isRefining ? bests.get(size) : undefined;
  return best === undefined ? { pattern, loss, size: undefined } : { pattern: best.pattern, loss: best.loss, size };
}

function lossLine({ baselineLoss }: SearchProgress, { loss, size }: Shown): string {
  if (loss === undefined || baselineLoss === undefined) return "loss not known yet";
  const what = size === undefined ? "loss" : `the best with ${size} Full: loss`;
  return `${what} ${formatLoss(loss)} (${formatLossChange(loss - baselineLoss)} against every indexer)`;
}

/** The lowest loss of each size that was committed. */
function curveOf({ bests, baselineLoss = 0 }: SearchProgress): CurvePoint[] {
  return [...bests]
    .map(([full, { loss }]) => ({ full, change: loss - baselineLoss }))
    .sort((left, right) => right.full - left.full);
}

/** The steps that were taken last; while results are refined, what became of each wanted size. */
function Accepted({ progress, lines }: { progress: SearchProgress; lines: number }): ReactElement | null {
  const { accepted, baselineLoss = 0, isRefining, targets, bests } = progress;
  const change = (loss: number): string => formatLossChange(loss - baselineLoss);
  const rows = isRefining
    ? targets.flatMap((size) => {
        const best = bests.get(size);
        if (best === undefined) return [];
        const gained = best.firstLoss - best.loss;
        const than = gained > 0 ? `greedy's ${change(best.firstLoss)}` : "greedy's own so far";
        return [`  ${size} Full  ${change(best.loss)}  ${than}`];
      })
    : accepted.map(({ flipped, letter, loss }) => {
        const became = letter === "S" ? "Shared" : "Full";
        return `  ${describeLayers(flipped)} ${became}  ${change(loss)}`;
      });
  const shown = isRefining ? rows.slice(0, lines - 1) : rows.slice(-(lines - 1));
  if (lines < 2 || shown.length === 0) return null;
  return (
    <Box flexDirection="column">
      <Text>
        {isRefining ? "best of each size, against every indexer" : "accepted, last below; loss against every indexer"}
      </Text>
      {shown.map((row, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: the last ones, in their places
        <Text key={index} wrap="truncate-end">
          {row}
        </Text>
      ))}
    </Box>
  );
}

/** Opens the view on a terminal; it stays there, in its last state, when closed. */
export function openSearchView(
  terminal: NodeJS.WriteStream,
  title: string,
  journal: string | undefined,
  sideBySide?: number,
): SearchDisplay {
  const live = openLiveView<SearchProgress>(terminal, (progress, screen) => (
    <SearchView title={title} progress={progress} journal={journal} sideBySide={sideBySide} {...screen} />
  ));
  return { show: (_, progress) => live.show(progress), tick: live.show, close: live.close };
}
