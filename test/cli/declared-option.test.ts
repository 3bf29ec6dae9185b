import { Command } from "commander";
import { expect, expectTypeOf, test } from "vitest";
import { choice, type Flags, group, option, repeatable, required } from "../../src/cli/arguments/declared-option.ts";
import { wholeNumber } from "../../src/cli/arguments/options.ts";
import type { Terminal } from "../../src/cli/console/terminal.ts";
import { addWork } from "../../src/cli/console/work.ts";

const options = [
  ...group(
    "Work:",
    required("-o, --output <file>", "where it goes"),
    option("--dry-run", "say what there is to do"),
    option("--no-pack", "one after the other"),
    option("--name <name>", "its name"),
    option("--host <address>", "where to listen", "127.0.0.1"),
    option("--max-new-tokens <n>", "how many", wholeNumber),
    option("--seed <n>", "of random choices", wholeNumber, 0),
    option("--profile [file]", "where time goes"),
    option("--reuse <journals...>", "of other searches"),
  ),
  choice("--engine <name>", "who serves it", ["vllm", "sglang"]),
  choice("--clock <name>", "which time", ["wall", "cpu"], "wall"),
  repeatable("--stop <text>", "where it ends"),
] as const;

const parsed = (...words: string[]): Flags<typeof options> => {
  const command = new Command().exitOverride();
  for (const one of options) command.addOption(one);
  return command.parse(["-o", "x", ...words], { from: "user" }).opts();
};

test("flags have the types that the options declare", () => {
  expectTypeOf<Flags<typeof options>>().toEqualTypeOf<{
    output: string;
    dryRun?: boolean;
    pack: boolean;
    name?: string;
    host: string;
    maxNewTokens?: number;
    seed: number;
    profile?: string | true;
    reuse?: string[];
    engine?: "vllm" | "sglang";
    clock: "wall" | "cpu";
    stop: string[];
  }>();
});

test("what is always there, by its type, is there without a word of the user", () => {
  expect(parsed()).toEqual({ output: "x", pack: true, host: "127.0.0.1", seed: 0, clock: "wall", stop: [] });
});

test("values are of the declared types", () => {
  const words = "--dry-run --no-pack --max-new-tokens 3 --profile --reuse a b --engine vllm --stop p --stop q";
  expect(parsed(...words.split(" "))).toMatchObject({
    dryRun: true,
    pack: false,
    maxNewTokens: 3,
    profile: true,
    reuse: ["a", "b"],
    engine: "vllm",
    stop: ["p", "q"],
  });
});

test("a command's work takes no flags but those of its options", () => {
  const words = { options: [option("--seed <n>", "of random choices", wholeNumber, 0)], help: "" } as const;
  addWork(new Command("work"), words, async (_flags: { seed: number }, _terminal: Terminal) => {});
  // @ts-expect-error: no option declares it
  addWork(new Command("work"), words, async (_flags: { seeds: number }, _terminal: Terminal) => {});
  // @ts-expect-error: it is a number
  addWork(new Command("work"), words, async (_flags: { seed: string }, _terminal: Terminal) => {});
});

test("help has the heading of a group, and the default as it is to be shown", () => {
  const help = new Command()
    .addOption(group("Work:", repeatable("--stop <text>", "ends", "nowhere"))[0])
    .helpInformation();
  expect(help).toMatch(/Work:\n +--stop <text> +ends \(default: nowhere\)/);
});
