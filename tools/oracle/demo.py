"""Records what transformers computes for a trained checkpoint with a tokenizer and a calibration set.

    python tools/oracle/demo.py models/demo --calibration calibration/demo.jsonl --prompt calibration/demo-prompt.txt \
        --out test/fixtures/demo/oracle.json
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import sys
import time

import torch
import transformers
from transformers import AutoTokenizer

from reference import Patterns, Taps, dump, forward, greedy, load, short, tied_to_lowest_index

STRINGS = [
    "Hello, world!",
    "  two  spaces\tand a tab\n\nand lines\r\n",
    "na\u00efve caf\u00e9 \u4f60\u597d \U0001f680 e\u0301",
    "1234567890 3.14159 -17 0x2a",
    "def f(x):\n    return x ** 2  # square\n",
    "I'm here; don't you see it's John's?",
    " leading space",
    "",
    "<|bos|>text with a special token<|eos|>",
]
CONVERSATION = [
    {"role": "user", "content": "What is the key of door 7?"},
    {"role": "assistant", "content": "The key of door 7 is 4821."},
    {"role": "user", "content": "And of door 9?"},
]


def windows(tokenizer, bos, path, field, length, count):
    """Documents, each after a bos, concatenated in file order and cut into windows; the remainder is dropped."""
    stream = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip():
                stream += [bos, *tokenizer.encode(json.loads(line)[field], add_special_tokens=False)]
            if len(stream) >= length * count:
                break
    found = [stream[i * length : (i + 1) * length] for i in range(min(count, len(stream) // length))]
    assert len(found) == count, f"{path} gives only {len(found)} windows of {length} tokens"
    return found


def window_nll(model, batch):
    """Mean NLL of every window of a batch, log-softmax and sums in float64, one window at a time."""
    return nll_of(forward(model, batch).logits, batch)


def nll_of(logits, batch):
    values = []
    for row, ids in zip(logits, batch):
        log_p = torch.log_softmax(row[:-1].double(), dim=-1)
        values.append(-log_p.gather(-1, ids[1:, None]).mean().item())
    return values


class Resumed:
    """Losses of patterns that depart from a base pattern, run from the first layer at which they do.

    Calls transformers' own layers with the arguments they had in the base's forward. glm_moe_dsa only.
    """

    def __init__(self, model, patterns, batch):
        self.model, self.patterns, self.batch = model, patterns, batch
        self.base, self.calls = None, []

    def set_base(self, pattern):
        self.base, self.calls = pattern, []
        self.patterns.set(pattern)

        def keep(_m, args, kwargs):
            self.calls.append((args, kwargs))

        handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in self.model.model.layers]
        values = window_nll(self.model, self.batch)
        for handle in handles:
            handle.remove()
        return values

    @torch.no_grad()
    def losses(self, pattern):
        first = next(i for i, letter in enumerate(pattern) if letter != self.base[i])
        self.patterns.set(pattern)
        args, kwargs = self.calls[first]
        hidden, rest, indices = args[0], args[1:], kwargs["prev_topk_indices"]
        for layer in self.model.model.layers[first:]:
            hidden, indices = layer(hidden, *rest, **kwargs | {"prev_topk_indices": indices})
        return nll_of(self.model.lm_head(self.model.model.norm(hidden)), self.batch)


def tied_rows(model, batch):
    """Rows whose k-th and (k+1)-th visible index scores are equal, and the smallest positive margin, by layer."""
    counts, smallest = [], []
    with Taps(model) as taps:
        forward(model, batch[:1])
    for record in taps.layers:
        if "indices" not in record:
            continue
        scores, k = record["index_scores"][0], model.config.index_topk
        margins = []
        for row in range(k, scores.shape[0]):
            top = torch.topk(scores[row, : row + 1], k + 1).values
            margins.append((top[k - 1] - top[k]).item())
        counts.append(sum(m == 0 for m in margins))
        smallest.append(min((m for m in margins if m > 0), default=0.0))
    return counts, smallest


def greedy_search(resumed, start, stop, tolerance=1e-5):
    """From `start`, flip the F layer with the lowest loss (lowest index within the tolerance) until `stop` are left."""
    current, steps = start, []
    while current.count("F") > stop:
        resumed.set_base(current)
        candidates = []
        for layer in range(1, len(current)):
            if current[layer] == "F":
                pattern = current[:layer] + "S" + current[layer + 1 :]
                candidates.append({"layer": layer, "pattern": pattern, "loss": mean(resumed.losses(pattern))})
        best = min(c["loss"] for c in candidates)
        chosen = next(c for c in candidates if c["loss"] <= best + tolerance)
        ranked = sorted(c["loss"] for c in candidates)
        steps.append(
            {
                "full_layers": current.count("F") - 1,
                "flipped": chosen["layer"],
                "pattern": chosen["pattern"],
                "loss": chosen["loss"],
                "gap_to_second": ranked[1] - ranked[0] if len(ranked) > 1 else None,
                "candidates": candidates,
            }
        )
        current = chosen["pattern"]
        print(f"{current} {chosen['loss']:.6f}", file=sys.stderr, flush=True)
    return steps


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def mean(values):
    return sum(values) / len(values)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--field", default="text")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--stop", type=int, default=3, help="Full layers at which the search ends")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ties", choices=["torch", "lowest index"], help="which of equal scores a top-k takes")
    parser.add_argument("--no-search", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model, info = load(args.model)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    patterns, config = Patterns(model), model.config
    layers = config.num_hidden_layers
    full = "F" * layers
    assert patterns.native == full, f"native pattern {patterns.native}: the search starts from all Full"
    cut = windows(tokenizer, config.bos_token_id, args.calibration, args.field, args.length, args.windows)
    batch = torch.tensor(cut)

    # sdpa is faster; it is used where it gives the same losses as eager.
    eager = window_nll(model, batch)
    quick, _ = load(args.model, attention="sdpa")
    started = time.time()
    sdpa = window_nll(quick, batch)
    print(f"one evaluation: {time.time() - started:.1f} s", file=sys.stderr, flush=True)
    apart = max(abs(a - b) for a, b in zip(eager, sdpa))
    attention = "sdpa" if apart < 1e-6 else "eager"
    searched = quick if attention == "sdpa" else model
    other = Patterns(searched)
    print(f"eager and sdpa differ by {apart:.2g}: the search uses {attention}", file=sys.stderr, flush=True)

    tied, smallest = tied_rows(model, batch)
    ties = args.ties or ("lowest index" if any(tied) else "torch")
    breaking = tied_to_lowest_index if ties == "lowest index" else contextlib.nullcontext
    print(f"rows tied at the boundary: {tied}; ties go to: {ties}", file=sys.stderr, flush=True)
    named = [full, ("FS" * layers)[:layers], ("FSSS" * layers)[:layers], "F" + "S" * (layers - 1)]
    files = [*sorted(pathlib.Path(args.model).glob("*.safetensors")), args.calibration, args.prompt]
    conversation = tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    oracle = {
        "format": 1,
        "fixture": pathlib.Path(args.out).parent.name,
        "made_with": {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__},
        "dtype": "float32",
        "attention": "eager",
        "experts": "eager",
        "model_type": config.model_type,
        "layers": layers,
        "vocabulary_size": config.vocab_size,
        "index_topk": config.index_topk,
        "patched_sharing": patterns.patched,
        "sha256": {pathlib.Path(path).name: digest(path) for path in files},
        "tokenization": [{"text": t, "ids": tokenizer.encode(t, add_special_tokens=False)} for t in STRINGS],
        "chat": {
            "messages": CONVERSATION,
            "add_generation_prompt": True,
            "text": conversation,
            "ids": tokenizer.encode(conversation, add_special_tokens=False),
        },
        "windows": {"length": args.length, "count": args.windows, "ids": cut},
        "ties": ties,
        "tied_rows_of_window_0": tied,
        "smallest_margins_of_window_0": smallest,
        "eager_sdpa_difference": apart,
        "losses": [],
        "last_rows": [],
        "generations": [],
    }
    for pattern in named:
        patterns.set(pattern)
        values = eager if pattern == full else window_nll(model, batch)
        with tied_to_lowest_index():
            lowest = window_nll(model, batch)
        oracle["losses"].append(
            {"pattern": pattern, "mean_nll": values, "loss": mean(values), "mean_nll_ties_to_lowest_index": lowest}
        )
        print(f"{pattern} {mean(values):.6f}, ties to the lowest index {mean(lowest):.6f}", file=sys.stderr, flush=True)
    prompt_text = pathlib.Path(args.prompt).read_text(encoding="utf-8")
    prompt = [config.bos_token_id, *tokenizer.encode(prompt_text, add_special_tokens=False)]
    for pattern in named[:2]:
        patterns.set(pattern)
        with breaking():
            row = forward(model, cut[0]).logits[0, -1]
            tokens, gaps = greedy(model, prompt, args.tokens)
        row = row.topk(20)
        oracle["last_rows"].append({"pattern": pattern, "window": 0, "tokens": row.indices, "logits": row.values})
        oracle["generations"].append(
            {
                "pattern": pattern,
                "prompt": prompt,
                "tokens": tokens,
                "gaps": gaps,
                "text": tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False),
            }
        )
        print(f"{pattern} {oracle['generations'][-1]['text']!r}", file=sys.stderr, flush=True)
    if not args.no_search:
        with breaking():
            resumed = Resumed(searched, other, batch)
            start_loss = mean(resumed.set_base(full))
            # Resuming is exact, or the search is not the reference it claims to be.
            other.set(named[1])
            assert window_nll(searched, batch) == resumed.losses(named[1])
            oracle["greedy_search"] = {
                "attention": attention,
                "start": full,
                "start_loss": start_loss,
                "tie_tolerance": 1e-5,
                "steps": greedy_search(resumed, full, args.stop),
            }
    out = pathlib.Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(dump(short(oracle)) + "\n")


if __name__ == "__main__":
    main()
