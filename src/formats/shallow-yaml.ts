/**
 * YAML of strangers. The parser of its tokens is a loop; what makes values of them calls itself for each level, and a
 * regular expression that is compiled where the stack ends takes the whole process with it: V8 has no error for that.
 */
import { Composer, type CST, type Document, type DocumentOptions, Parser } from "yaml";

/** Levels of lists and mappings; files that people write have ten. */
const MOST_LEVELS = 100;

/**
 * Documents of a text, with what is wrong in each under `errors`.
 * @throws RangeError where lists and mappings are nested more deeply than anybody writes them
 */
export function parseShallowYaml(text: string, options: DocumentOptions = {}): Document.Parsed[] {
  const tokens = [...new Parser().parse(text)];
  if (tokens.some(isDeep)) throw new RangeError(`YAML of more than ${MOST_LEVELS} levels`);
  return [...new Composer(options).compose(tokens)] as Document.Parsed[];
}

function isDeep(whole: CST.Token): boolean {
  const left: [token: CST.Token | null | undefined, level: number][] = [[whole, 0]];
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    const [token, level] = next;
    if (level > MOST_LEVELS) return true;
    if (token?.type === "document") left.push([token.value, level]);
    else if (token !== null && token !== undefined && "items" in token)
      for (const { key, value } of token.items) left.push([key, level + 1], [value, level + 1]);
  }
  return false;
}
