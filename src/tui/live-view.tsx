/** A view that follows its terminal: redrawn when something happens, and when the window changes its size. */
import { Box, render, Text } from "ink";
import type { ReactElement } from "react";
import { cellText } from "../base/quoted.ts";

/** What a view knows of its terminal, and of itself. */
export interface Screen {
  columns?: number;
  rows?: number;
  /** The work has ended, and this is what stays on the terminal. */
  hasEnded?: boolean;
}

/** The last line of a view, as long as the work runs: what Ctrl-C does with what was done so far. */
export function Kept(props: {
  where: string | undefined;
  name?: string;
  unless?: string;
  hasEnded: boolean | undefined;
}): ReactElement | null {
  const { where, name = "journal", unless = "without -o", hasEnded = false } = props;
  if (hasEnded) return null;
  return (
    <Box marginTop={1}>
      <Text dimColor wrap="truncate-end">
        {where === undefined ? `Ctrl-C stops; ${unless} nothing is saved` : `Ctrl-C saves; ${name} ${cellText(where)}`}
      </Text>
    </Box>
  );
}

/** Columns that views use at most: longer lines are not read. */
const WIDEST = 200;

export interface LiveView<T> {
  show(state: T): void;
  /** Leaves the last state on the terminal. */
  close(): void;
}

/** @param view draws a state; no line of it is longer than the screen */
export function openLiveView<T>(
  terminal: NodeJS.WriteStream,
  view: (state: T, screen: Screen) => ReactElement,
): LiveView<T> {
  let instance: ReturnType<typeof render> | undefined;
  let shown: { state: T } | undefined;
  let isClosed = false;
  const draw = (): void => {
    if (shown === undefined) return;
    const size = { columns: Math.min(WIDEST, terminal.columns || 80), rows: terminal.rows || 24 };
    const screen = { ...size, hasEnded: isClosed };
    const element = view(shown.state, screen);
    if (instance !== undefined) instance.rerender(element);
    // stdin is left alone and Ctrl-C stays the process's own signal: it saves.
    else instance = render(element, { stdout: terminal, stderr: terminal, exitOnCtrlC: false, patchConsole: false });
  };
  const resized = (): void => {
    // What stands there was laid out for another width: its lines may have wrapped, and would stay.
    instance?.clear();
    draw();
  };
  terminal.on("resize", resized);
  return {
    show(state) {
      // What the work says on its way to a stop comes after the view's end.
      if (isClosed) return;
      shown = { state };
      draw();
    },
    close() {
      if (isClosed) return;
      isClosed = true;
      terminal.off("resize", resized);
      draw();
      instance?.unmount();
    },
  };
}
