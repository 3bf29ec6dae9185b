/**
 * Do a decoder's caches keep what is written? Caches that live in an ONNX Runtime session rest on what its operators do, and
 * not on what ONNX promises: another version could break them, and nothing but wrong text would tell.
 */

/** What the check needs of a decoder. */
export interface Rewindable {
  readonly vocabularySize: number;
  decode(id: number): Promise<Float32Array>;
  rewind(position: number): void;
}

/**
 * Whether the first token shows in the logits after the second one. Tokens of a vocabulary may have equal embeddings, so
 * several are tried. Leaves the decoder at its beginning.
 */
export async function keepsWhatIsWritten(decoder: Rewindable): Promise<boolean> {
  const after = async (first: number): Promise<Float32Array> => {
    decoder.rewind(0);
    await decoder.decode(first);
    const logits = Float32Array.from(await decoder.decode(0));
    decoder.rewind(0);
    return logits;
  };
  const reference = await after(0);
  for (const share of [1 / 2, 1 / 3, 1 / 5]) {
    const logits = await after(Math.floor(decoder.vocabularySize * share));
    if (logits.some((logit, id) => logit !== reference[id])) return true;
  }
  return false;
}
