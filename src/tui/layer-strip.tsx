/** The pattern, a letter for each layer, with the numbers of the layers and what the letters mean. */
import { Box, Text } from "ink";
import type { ReactElement } from "react";

/** Layers between two gaps: they are counted by tens. */
const GROUP = 10;
/** Columns of the number before a line. */
const LABEL = 4;

/** Lines that the strip takes, legend included. */
export function stripLines(layers: number, width: number): number {
  return Math.ceil(layers / layersPerLine(width)) + 1;
}

function layersPerLine(width: number): number {
  return GROUP * Math.max(1, Math.floor((width - LABEL) / (GROUP + 1)));
}

/** @param tried layers that are being tried: they stand in lower case, and inverted */
export function LayerStrip(props: { pattern: string; tried: readonly number[]; width: number }): ReactElement {
  const { pattern, tried, width } = props;
  const perLine = layersPerLine(width);
  const starts = Array.from({ length: Math.ceil(pattern.length / perLine) }, (_, line) => line * perLine);
  return (
    <Box flexDirection="column">
      {starts.map((start) => (
        <Text key={start}>
          <Text dimColor>{`${String(start).padStart(LABEL - 1)} `}</Text>
          {[...pattern.slice(start, start + perLine)].map((letter, index) => {
            const layer = start + index;
            const isTried = tried.includes(layer);
            const gap = index > 0 && index % GROUP === 0 ? " " : "";
            return (
              <Text key={layer}>
                {gap}
                <Text bold={letter === "F"} dimColor={letter === "S"} inverse={isTried}>
                  {isTried ? letter.toLowerCase() : letter}
                </Text>
              </Text>
            );
          })}
        </Text>
      ))}
      <Text dimColor>{legend(width)}</Text>
    </Box>
  );
}

function legend(width: number): string {
  if (width >= 100) {
    return "    F Full: runs its indexer   S Shared: reuses the top-k of the F before it   f, s: being tried now";
  }
  return width >= 72
    ? "    F runs its indexer   S reuses the F before it   f, s: being tried now"
    : "    F runs its indexer, S reuses; f, s: tried now";
}
