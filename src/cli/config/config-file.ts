/** `indexcache.config.json`: where it is looked for, and how it is read. `docs/config.md` explains it. */
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { quoted } from "../../base/quoted.ts";
import { readText } from "../../formats/text-file.ts";
import { parseJson } from "../../formats/validation.ts";
import { mayNameFiles, namesFiles, type Setting, type SettingValue } from "./settings-table.ts";

export const CONFIG_NAME = "indexcache.config.json";

/** The section whose values hold for every command that has such an option. */
export const COMMON = "common";

/** Where the form is explained. */
export const configHint = "docs/config.md describes the file, and indexcache config --schema prints its JSON Schema";

export interface ConfigFile {
  path: string;
  sections: ReadonlyMap<string, Readonly<Record<string, unknown>>>;
}

const sectionsSchema = z.looseObject({ $schema: z.string().optional() });
const sectionSchema = z.record(z.string(), z.unknown());

/**
 * The nearest config file: in this folder or above it, up to the repository's root or the home folder. Beyond those, in
 * folders that others may write to, nothing is looked for.
 */
export function findConfig(folder: string, home = homedir()): string | undefined {
  const folders: string[] = [];
  let isBounded = false;
  for (let current = resolve(folder); ; current = dirname(current)) {
    folders.push(current);
    isBounded = current === resolve(home) || existsSync(join(current, ".git"));
    if (isBounded || dirname(current) === current) break;
  }
  return (isBounded ? folders : folders.slice(0, 1))
    .map((one) => join(one, CONFIG_NAME))
    .filter((path) => existsSync(path))
    .map((path) => relative(folder, path))[0];
}

/** @throws InputError for what is no config file; its sections are still to be checked, by those who know the options */
export async function readConfig(path: string): Promise<ConfigFile> {
  const what = `Config file "${path}"`;
  const parsed = parseJson(await readText(path, `config file "${path}"`), sectionsSchema, what, configHint);
  const sections = new Map<string, Record<string, unknown>>();
  for (const [name, section] of Object.entries(parsed)) {
    if (name === "$schema") continue;
    const result = sectionSchema.safeParse(section);
    if (!result.success || Array.isArray(section)) {
      const sections = `sections are named after commands, and "${COMMON}" holds for all of them`;
      throw new InputError(`${what}: ${quoted(name)} must be an object with options; ${sections}`, {
        hint: configHint,
      });
    }
    sections.set(name, result.data);
  }
  return { path, sections };
}

/** @throws InputError for a section that is no command's */
export function requireSections({ path, sections }: ConfigFile, isCommand: (name: string) => boolean): void {
  const stray = [...sections.keys()].find((name) => name !== COMMON && !isCommand(name));
  if (stray === undefined) return;
  throw new InputError(`Config file "${path}": ${quoted(stray)} is no command that takes settings`, {
    hint: configHint,
  });
}

/**
 * @param known keys of all commands
 * @throws InputError for a common value that no command has
 */
export function requireCommonKeys(
  { path, sections }: ConfigFile,
  known: ReadonlySet<string>,
  hint: string = configHint,
): void {
  const stray = Object.keys(sections.get(COMMON) ?? {}).find((key) => !known.has(key));
  if (stray === undefined) return;
  throw new InputError(`Config file "${path}": "${COMMON}" has ${quoted(stray)}, no option of any command`, { hint });
}

/** A value of the file, with the files that it names seen from here instead of from there. */
export function seenFromHere(value: SettingValue, setting: Setting, configPath: string): SettingValue {
  if (!namesFiles(setting) || typeof value === "boolean" || typeof value === "number") return value;
  const folder = dirname(resolve(configPath));
  if (relative(".", folder) === "") return value;
  const move = (text: string | number): string | number => {
    if (typeof text === "number") return text;
    const moved = relative(".", resolve(folder, text));
    return mayNameFiles(setting) && !existsSync(moved.replace(/@[\d./]+$/, "")) ? text : moved;
  };
  return typeof value === "string" ? move(value) : value.map(move);
}
