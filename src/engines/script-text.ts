/** Comments and variables of scripts, whatever their language: shell, Python, Dockerfiles, systemd units, PowerShell. */

/** The text with comments blanked out; lines keep their numbers. */
export function withoutComments(text: string): string {
  const lines = withoutBlocks(text.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n")).split("\n");
  return lines.map((line) => (/^\s*(?:#|\/\/|;|::|REM\b|rem\b)/.test(line) ? "" : beforeComment(line))).join("\n");
}

/** A trailing comment begins outside quotes, after a blank. */
function beforeComment(line: string): string {
  let quote: string | undefined;
  for (let i = 0; i < line.length; i++) {
    const character = line[i];
    if (character === "\\") i++;
    else if (quote !== undefined) quote = character === quote ? undefined : quote;
    else if (character === '"' || character === "'") quote = character;
    else if ((character === "#" || line.startsWith("//", i)) && /[\s,{[]/.test(line[i - 1] ?? " "))
      return line.slice(0, i);
  }
  return line;
}

/** Without Python's docstrings and the shell's `: <<'NAME'` blocks, which are comments of several lines. */
function withoutBlocks(text: string): string {
  const lines = text.split("\n");
  let end: ((line: string) => boolean) | undefined;
  return lines
    .map((line) => {
      if (end !== undefined) {
        if (end(line)) end = undefined;
        return "";
      }
      const block = /^\s*:\s*<<-?\s*["']?(\w+)["']?\s*$/.exec(line)?.[1];
      if (block !== undefined) {
        end = (later) => later.trim() === block;
        return "";
      }
      const quotes = /^\s*[rRuU]?("""|''')/.exec(line)?.[1];
      if (quotes === undefined) return line;
      const closed = line.indexOf(quotes, line.indexOf(quotes) + 3);
      if (closed !== -1) return line.slice(closed + 3);
      end = (later) => later.includes(quotes);
      return "";
    })
    .join("\n");
}

/** What variables of a text are set to: letters, or other variables. */
export type Variables = Map<string, Set<string>>;

const assignment =
  /(?<!\w)([A-Za-z_]\w{0,99})["']?\s*(?::\s*str\s*)?[:?]?=\s*(?:[rRbBuUfF](?=["']))?[\\"'`]{0,6}(\$\{\w{1,99}:?[-=][FSfs]{1,9999}\}|\$[{(]?\w{1,99}[})]?|[FSfs]{2,9999})(?=[\\"'`\s;,)&|}]|$)/gm;
const legacyEnvironment = /^\s*ENV\s+([A-Za-z_]\w{0,99})\s+["']?([FSfs]{2,9999})["']?\s*$/gm;

/** Adds what a text without comments assigns. */
export function collectVariables(text: string, variables: Variables): void {
  for (const pattern of [assignment, legacyEnvironment]) {
    for (const [, name = "", value = ""] of text.matchAll(pattern)) addVariable(variables, name, value);
  }
}

export function addVariable(variables: Variables, name: string, value: string): void {
  variables.set(name, (variables.get(name) ?? new Set()).add(value));
}

/** The letters that a variable has; undefined where the text does not say, or says different ones. */
export function variableLetters(name: string, variables: Variables, depth = 0): string | undefined {
  const found = new Set<string>();
  for (const value of variables.get(name) ?? []) {
    const reference = parseReference(value);
    if (reference === undefined) found.add(value);
    else {
      const own =
        reference.name === name || depth > 8 ? undefined : variableLetters(reference.name, variables, depth + 1);
      const letters = own ?? reference.fallback;
      if (letters !== undefined) found.add(letters);
    }
  }
  return found.size === 1 ? [...found][0] : undefined;
}

/**
 * `$NAME`, `$$NAME`, `${NAME}`, `${NAME:-FFSS}`, `${{ env.NAME }}`, `$(NAME)`, `$env:NAME`, `%NAME%`; undefined for
 * anything else.
 */
export function parseReference(text: string): { name: string; fallback?: string; length: number } | undefined {
  const match =
    /^\$\{(?<braced>[A-Za-z_]\w{0,99})(?::?[-=](?<fallback>[^}]{0,9999}))?\}|^\$\{\{\s{0,9}(?:[a-z]{1,20}\.){0,3}(?<workflow>[A-Za-z_]\w{0,99})\s{0,9}\}\}|^\$\((?<called>[A-Za-z_]\w{0,99})\)|^\$(?:env:|\$)?(?<plain>[A-Za-z_]\w{0,99})|^%(?<batch>[A-Za-z_]\w{0,99})%/.exec(
      text,
    );
  if (match === null) return undefined;
  const { braced, workflow, called, plain, batch, fallback } = match.groups ?? {};
  const name = braced ?? workflow ?? called ?? plain ?? batch ?? "";
  const letters = fallback?.replace(/^["'\\]+|["'\\]+$/g, "");
  const usable = letters !== undefined && /^[A-Za-z]+$/.test(letters);
  return { name, length: match[0].length, ...(usable ? { fallback: letters } : {}) };
}
