/** What a person sees while long work runs: a view that redraws itself where stderr can show one, else lines. */
import process from "node:process";
import { settleColours, type Terminal } from "./terminal.ts";

const TICK_MS = 1000;

export interface Shown<Display> {
  inLines(): Display;
  inView(stream: NodeJS.WriteStream): Promise<Display>;
  /** Every second: time has passed. */
  tick(display: Display): void;
  /** Once: the work has ended, or was asked to stop. */
  close(display: Display): void;
}

/** Does the work while a display shows it. What is said meanwhile waits for the end of a view, which would draw over it. */
export async function whileShowing<Display, Result>(
  terminal: Terminal,
  { inLines, inView, tick, close }: Shown<Display>,
  work: (display: Display) => Promise<Result>,
): Promise<Result> {
  const isView = terminal.showsViews;
  if (isView) settleColours();
  const display = isView ? await inView(process.stderr) : inLines();
  if (isView) terminal.hold();
  const ticker = setInterval(() => tick(display), TICK_MS);
  let isOpen = true;
  const end = (): void => {
    if (isOpen) close(display);
    isOpen = false;
    clearInterval(ticker);
    terminal.tell();
  };
  terminal.signal.addEventListener("abort", end);
  try {
    return await work(display);
  } finally {
    terminal.signal.removeEventListener("abort", end);
    end();
  }
}
