"""Compares a checkpoint that `indexcache pattern apply --engine-shape` wrote with its native one, in transformers in fp32.

    python tools/oracle/engine_shape.py models/demo demo-tp1 --calibration calibration/demo.jsonl [--pattern FSSFSSSSSFSS]

Random token ids where no calibration file is given. Ends with 1 where the mean NLL of a sequence differs by more than the
tolerance. Logits of single rows may differ by more: where two keys score alike, fp32 sums of other lengths order them otherwise.
"""

import argparse
import json
import sys

import torch
from transformers import AutoTokenizer

from reference import Patterns, forward, load, mean_nll


def sequences(folder, calibration, length, count, vocabulary):
    """`count` sequences of `length` ids: the beginnings of documents that are long enough."""
    if calibration is None:
        generator = torch.Generator().manual_seed(0)
        return [torch.randint(3, vocabulary, (length,), generator=generator).tolist() for _ in range(count)]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    with open(calibration, encoding="utf-8") as file:
        for line in file:
            ids = tokenizer.encode(json.loads(line)["text"])[:length]
            if len(ids) == length:
                found.append(ids)
            if len(found) == count:
                return found
    sys.exit(f"{calibration} holds only {len(found)} documents of {length} tokens")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("native")
    parser.add_argument("padded")
    parser.add_argument("--calibration")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--pattern", action="append", default=[])
    parser.add_argument("--tolerance", type=float, default=1e-6, help="on the mean NLL of a sequence")
    arguments = parser.parse_args()
    native, padded = (load(folder)[0] for folder in (arguments.native, arguments.padded))
    both = [(native, Patterns(native)), (padded, Patterns(padded))]
    ids = sequences(arguments.native, arguments.calibration, arguments.length, arguments.count, native.config.vocab_size)
    failed = False
    for pattern in [both[0][1].native, *arguments.pattern]:
        for number, sequence in enumerate(ids):
            logits = []
            for model, patterns in both:
                patterns.set(pattern)
                with torch.no_grad():
                    logits.append(forward(model, sequence).logits[0])
            losses = [mean_nll(found, sequence) for found in logits]
            difference = (logits[0] - logits[1]).abs()
            failed |= abs(losses[0] - losses[1]) > arguments.tolerance
            print(
                json.dumps(
                    {
                        "pattern": pattern,
                        "sequence": number,
                        "native": losses[0],
                        "padded": losses[1],
                        "largest_logit_difference": difference.max().item(),
                        "mean_logit_difference": difference.mean().item(),
                        "rows_beyond_1e-4": int((difference.max(-1).values > 1e-4).sum()),
                    }
                )
            )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
