/** Chinese text to words. jieba's dictionary weighs 10 MB, so it is an optional dependency. */

/** Precise mode with the model for unknown words, as `jieba.cut(text)`. */
export type Segment = (text: string) => string[];

let loading: Promise<Segment | undefined> | undefined;

/** @returns undefined where @node-rs/jieba is not installed or does not run on this machine */
export function loadSegmentation(): Promise<Segment | undefined> {
  loading ??= load();
  return loading;
}

async function load(): Promise<Segment | undefined> {
  try {
    const { Jieba } = await import("@node-rs/jieba");
    const { dict } = await import("@node-rs/jieba/dict.js");
    const jieba = Jieba.withDict(dict);
    return (text) => jieba.cut(text, true);
  } catch {
    return undefined;
  }
}
