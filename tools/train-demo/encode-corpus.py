"""Encodes a corpus as one stream of 16-bit tokens, <|bos|> document <|eos|>, and compresses it.

    python encode-corpus.py corpus.jsonl ../../models/demo corpus.bin.xz

Bit 15 marks the tokens of answers (text that can be known from what stands before it); training weights them more.
"""

import argparse
import json
import lzma
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

ANSWER = 0x8000


def encode(tokenizer: Tokenizer, records: list[dict], eos: int) -> list[np.ndarray]:
    """Tokens of each record with the answer bit set where a token lies in an answer."""
    encoded = []
    for record, encoding in zip(records, tokenizer.encode_batch([record["text"] for record in records])):
        ids = np.array(encoding.ids + [eos], dtype=np.uint16)
        starts = np.array([start for start, _ in encoding.offsets] + [-1])
        starts[0] = -1  # the leading <|bos|> has the empty range (0, 0)
        for start, end in record["answers"]:
            ids[(starts >= start) & (starts < end)] |= ANSWER
        if record["answers"] and record["answers"][-1][1] >= len(record["text"]) - 1:
            ids[-1] |= ANSWER  # that nothing follows can be known too
        encoded.append(ids)
    return encoded


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    eos = tokenizer.token_to_id("<|eos|>")
    parts, batch, lengths = [], [], []

    def flush() -> None:
        for ids in encode(tokenizer, batch, eos):
            parts.append(ids)
            lengths.append(len(ids))
        batch.clear()

    with args.corpus.open(encoding="utf-8") as lines:
        for line in lines:
            batch.append(json.loads(line))
            if len(batch) == 2000:
                flush()
    flush()
    stream = np.concatenate(parts)
    # High and low bytes apart: they compress a quarter better that way.
    planes = np.concatenate([(stream >> 8).astype(np.uint8), (stream & 0xFF).astype(np.uint8)])
    with lzma.open(args.out, "wb", preset=2) as out:
        out.write(planes.tobytes())
    lengths = np.array(lengths)
    print(
        f"documents {len(lengths)} tokens {len(stream)} answers {(stream >= ANSWER).mean():.3f} "
        f"lengths p50 {np.median(lengths):.0f} p90 {np.quantile(lengths, 0.9):.0f} max {lengths.max()} "
        f"beyond 1024 {(lengths > 1024).mean():.4f} bytes {args.out.stat().st_size}"
    )


if __name__ == "__main__":
    main()
