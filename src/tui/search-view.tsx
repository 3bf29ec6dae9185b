/**
 * The live view of a search, on stderr: stdout belongs to results. It reads no keys, so that it needs no raw mode, and
 * every colour has a letter or a word beside it.
 */
import { Box, render, Text } from "ink";
import type { ReactElement } from "react";
import { cellText } from "../base/quoted.ts";
import { formatDuration, formatError, formatLoss, formatLossChange } from "../report/quantities.ts";
import { describeLayers, describePosition, type SearchDisplay } from "../report/search/search-display.ts";
import type { Candidate } from "../search/events.ts";
import { isSameFlip, type SearchProgress } from "../search/progress.ts";

export interface SearchViewProps {
  title: string;
  progress: SearchProgress;
  /** Undefined where nothing is written down. */
  journal: string | undefined;
  /** Sequences that are computed side by side. */
  sideBySide?: number;
  /** Lines of the terminal. */
  rows?: number;
}

/** Candidates that are listed where the terminal is low; a model has up to 77, and the best are what matters. */
const LISTED_CANDIDATES = 6;
/** Lines of the view beside its candidates, those of a pattern that wraps included. */
const OTHER_LINES = 16;

export function SearchView({ title, progress, journal, sideBySide, rows = 24 }: SearchViewProps): ReactElement {
  const { step, steps, loss, baselineLoss, elapsedSeconds } = progress;
  const listed = Math.max(LISTED_CANDIDATES, rows - OTHER_LINES);
  return (
    <Box flexDirection="column">
      <Text>
        <Text bold>{cellText(title)}</Text>
        {step === 0 ? ": measuring the baseline" : `: step ${step} of ${steps}`}
      </Text>
      <Text>
        {describePosition(progress)}, {formatDuration(elapsedSeconds)} elapsed
        {sideBySide === undefined ? "" : `, ${sideBySide} sequences at once`}
      </Text>
      <Box marginTop={1}>
        <PatternStrip progress={progress} />
      </Box>
      <Text>
        {loss === undefined || baselineLoss === undefined
          ? "loss not known yet"
          : `loss ${formatLoss(loss)} (${formatLossChange(loss - baselineLoss)} against every indexer)`}
      </Text>
      {progress.path.length > 1 ? <Text>{formatPath(progress)}</Text> : null}
      <Candidates progress={progress} listed={listed} />
      <Text dimColor>
        {journal === undefined
          ? "Ctrl-C stops; without -o nothing is saved"
          : `Ctrl-C saves; journal ${cellText(journal)}`}
      </Text>
    </Box>
  );
}

/** One letter a layer; the one that is tried stands in brackets. */
function PatternStrip({ progress }: { progress: SearchProgress }): ReactElement {
  return (
    <Text>
      {[...progress.pattern].map((letter, layer) => {
        const isTried = layer === progress.trying || progress.tryingOthers?.includes(layer) === true;
        const text = isTried ? `[${letter}]` : letter;
        const isFull = letter === "F";
        return (
          // biome-ignore lint/suspicious/noArrayIndexKey: a layer's index is its identity
          <Text key={layer} bold={isFull} color={isFull ? "green" : "yellow"} inverse={isTried}>
            {text}
          </Text>
        );
      })}
    </Text>
  );
}

function Candidates({ progress, listed }: { progress: SearchProgress; listed: number }): ReactElement {
  const { candidates, best, trying, tryingOthers: others = [], loss } = progress;
  const ranked = candidates.toSorted((left, right) => left.loss - right.loss).slice(0, listed);
  const more = candidates.length - ranked.length;
  return (
    <Box flexDirection="column" marginTop={1} marginBottom={1}>
      <Text>
        {trying === undefined ? "candidates" : `trying ${describeLayers({ layer: trying, others })}; candidates`} of
        this step
        {candidates.length === 0 ? ": none yet" : ", best first:"}
      </Text>
      {ranked.map((candidate) => (
        <CandidateLine
          key={flippedLayers(candidate)}
          candidate={candidate}
          loss={loss}
          sequences={progress.sequences}
          isBest={best !== undefined && isSameFlip(candidate, best)}
        />
      ))}
      {more > 0 ? <Text dimColor>{`  and ${more} more`}</Text> : null}
    </Box>
  );
}

function CandidateLine(props: {
  candidate: Candidate;
  loss: number | undefined;
  sequences: number;
  isBest: boolean;
}): ReactElement {
  const { candidate, loss, sequences, isBest } = props;
  const change = loss === undefined ? "" : ` (${formatLossChange(candidate.loss - loss)})`;
  const layers =
    candidate.others === undefined ? `layer ${String(candidate.layer).padStart(2)}` : describeLayers(candidate);
  const part = candidate.sequences < sequences ? `, ${candidate.sequences} of ${sequences} sequences` : "";
  const text = `  ${layers}  ${formatLoss(candidate.loss)} ±${formatError(candidate.changeError)}${change}${part}${isBest ? "  best so far" : ""}`;
  return isBest ? <Text color="green">{text}</Text> : <Text>{text}</Text>;
}

/** What tells candidates of one step apart. */
function flippedLayers({ layer, others = [] }: Candidate): string {
  return [layer, ...others].join();
}

const BARS = "▁▂▃▄▅▆▇█";
/** Sizes that the plot shows; the sparsest ones, where losses rise. */
const PLOTTED = 48;

/** The lowest loss of each size that was committed, as bars from the most Full layers to the fewest. */
function formatPath({ path, baselineLoss = 0 }: SearchProgress): string {
  const best = new Map<number, number>();
  for (const { full, loss } of path) best.set(full, Math.min(loss, best.get(full) ?? Number.POSITIVE_INFINITY));
  const sizes = [...best.keys()].sort((left, right) => right - left).slice(-PLOTTED);
  const rises = sizes.map((size) => Math.max(0, (best.get(size) ?? 0) - baselineLoss));
  const highest = Math.max(...rises);
  const bars = rises.map((rise) => BARS[highest === 0 ? 0 : Math.round((rise / highest) * (BARS.length - 1))]).join("");
  return `${sizes[0]} Full ${bars} ${sizes.at(-1)} Full, highest ${formatLossChange(highest)}`;
}

/** Opens the view on a terminal; it stays there, in its last state, when closed. */
export function openSearchView(
  terminal: NodeJS.WriteStream,
  title: string,
  journal: string | undefined,
  sideBySide?: number,
): SearchDisplay {
  const view = (progress: SearchProgress): ReactElement => (
    <SearchView
      title={title}
      progress={progress}
      journal={journal}
      rows={terminal.rows}
      {...(sideBySide === undefined ? {} : { sideBySide })}
    />
  );
  let instance: ReturnType<typeof render> | undefined;
  let isClosed = false;
  const update = (progress: SearchProgress): void => {
    // What a search says on its way to a stop comes after the view's end.
    if (isClosed) return;
    if (instance !== undefined) instance.rerender(view(progress));
    // stdin is left alone and Ctrl-C stays the process's own signal: it saves.
    else
      instance = render(view(progress), {
        stdout: terminal,
        stderr: terminal,
        exitOnCtrlC: false,
        patchConsole: false,
      });
  };
  return {
    show: (_, progress) => update(progress),
    tick: update,
    close: () => {
      isClosed = true;
      instance?.unmount();
    },
  };
}
