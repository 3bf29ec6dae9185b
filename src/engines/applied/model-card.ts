/** Model cards (README.md) of checkpoints that indexcache writes: what is new stands above the card that was there before. */
import { stringify } from "yaml";
import { parseShallowYaml } from "../../formats/shallow-yaml.ts";

/** Between what is new and the previous card. */
const RULE = "---";

/** Characters of the previous card that are kept. */
const LONGEST_CARD = 500_000;

/**
 * @param lines what is new; the first one is a title that ends in `lightning indexers`
 * @param previous the card of the checkpoint that this one is made from: its metadata and text stay
 */
export function modelCard(lines: readonly string[], previous: string | undefined): string {
  const { matter, body } = splitCard(previous ?? "");
  const original = withoutOwnText(body);
  const tags = Array.isArray(matter.tags) ? matter.tags : [];
  const head = { ...matter, tags: [...new Set([...tags, "indexcache"])] };
  const all = ["---", stringify(head).trimEnd(), "---", "", ...lines];
  return `${[...all, ...(original === "" ? [] : ["", RULE, "", original])].join("\n")}\n`;
}

/** A table without a head, of names and values. */
export function cardTable(rows: readonly (readonly [string, string])[]): string[] {
  return ["| | |", "|---|---|", ...rows.map(([name, value]) => `| ${name} | ${value.replaceAll("|", "\\|")} |`)];
}

/** A card that indexcache wrote before keeps what it had kept of the one before it. */
function withoutOwnText(body: string): string {
  if (!/^\s*# [^\n]* lightning indexers\n/.test(body)) return body.trim();
  const rule = body.indexOf(`\n${RULE}\n`);
  return rule === -1 ? "" : body.slice(rule + RULE.length + 2).trim();
}

/** The YAML at the head of a card, and what follows it; a card whose head is no YAML mapping is all text. */
function splitCard(card: string): { matter: Record<string, unknown>; body: string } {
  const text = card.slice(0, LONGEST_CARD).replaceAll("\r\n", "\n");
  const end = text.startsWith("---\n") ? text.indexOf("\n---", 3) : -1;
  if (end === -1) return { matter: {}, body: text };
  const body = text.slice(text.indexOf("\n", end + 1) + 1);
  try {
    const [document] = parseShallowYaml(text.slice(4, end));
    if (document === undefined || document.errors.length > 0) return { matter: {}, body: text };
    const matter: unknown = document.toJS({ maxAliasCount: 0 });
    const isMapping = typeof matter === "object" && matter !== null && !Array.isArray(matter);
    return isMapping ? { matter: matter as Record<string, unknown>, body } : { matter: {}, body: text };
  } catch {
    return { matter: {}, body: text };
  }
}
