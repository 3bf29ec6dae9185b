"""Measures the demo model with transformers in fp32: retrieval, and the loss of patterns on a calibration file.

    python evaluate.py ../../models/demo --tasks evaluation.jsonl --calibration ../../calibration/demo.jsonl

A task counts as found when greedy decoding gives the whole expected answer: every answer token is the argmax given the
tokens before it. That is stricter than RULER's score, which accepts the gold strings anywhere and in any order.
Patterns change `indexer_types` alone; a Shared layer's indexer tensors are then left unread.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, GlmMoeDsaConfig, GlmMoeDsaForCausalLM

PATTERNS = {
    "all F": "FFFFFFFFFFFF",
    "every second": "FSFSFSFSFSFS",
    "freq 2": "FFSFSFSFSFSF",
    "every third": "FSSFSSFSSFSS",
    "every fourth": "FSSSFSSSFSSS",
    "freq 4": "FFSSSFSSSFSS",
    "one F": "FSSSSSSSSSSS",
}


def set_pattern(model, pattern: str) -> None:
    """Makes the layers of a loaded all-F model Full or Shared, exactly as `indexer_types` would at load time."""
    for layer, kind, indexer in zip(model.model.layers, pattern, model.indexers):
        layer.self_attn.skip_topk = kind == "S"
        layer.self_attn.indexer = None if kind == "S" else indexer


def load(folder: Path):
    model, info = GlmMoeDsaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    problems = {name: list(keys) for name, keys in info.items() if keys}
    if problems:
        raise SystemExit(f"the checkpoint does not load cleanly: {problems}")
    model.eval().requires_grad_(False)
    object.__setattr__(model, "indexers", [layer.self_attn.indexer for layer in model.model.layers])
    return model


def found(model, tokenizer, records: list[dict], batch: int) -> tuple[int, int]:
    """How many answers greedy decoding gives in full, and of how many."""
    right, asked = 0, 0
    encoded = []
    for record in records:
        prompt = record["input"] + record["answerPrefix"]
        start, whole = len(tokenizer(prompt).input_ids), tokenizer(prompt + record["answer"]).input_ids
        if len(whole) <= model.config.max_position_embeddings:
            encoded.append((start, whole))
    for at in range(0, len(encoded), batch):
        part = encoded[at : at + batch]
        ids = torch.full((len(part), max(len(whole) for _, whole in part)), tokenizer.pad_token_id)
        for row, (_, whole) in zip(ids, part):
            row[: len(whole)] = torch.tensor(whole)
        best = model(ids.to(model.device), use_cache=False).logits.argmax(-1).cpu()
        for row, (start, whole), guess in zip(ids, part, best):
            right += bool((guess[start - 1 : len(whole) - 1] == row[start : len(whole)]).all())
            asked += 1
    return right, asked


def windows(tokenizer, path: Path, length: int) -> torch.Tensor:
    """One window per document that is long enough: its first `length` tokens, the leading <|bos|> included."""
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    rows = tokenizer(texts, truncation=True, max_length=length).input_ids
    return torch.tensor([row for row in rows if len(row) == length])


def loss(model, ids: torch.Tensor, batch: int) -> float:
    total = 0.0
    for part in ids.to(model.device).split(batch):
        logits = model(part, use_cache=False).logits
        total += F.cross_entropy(logits[:, :-1].flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
    return total / (ids.shape[0] * (ids.shape[1] - 1))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--tasks", type=Path)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--patterns", nargs="*", default=list(PATTERNS.values()))
    parser.add_argument("--task-patterns", nargs="*", default=["FFFFFFFFFFFF"])
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = load(args.model).to(args.device)
    if args.calibration:
        ids = windows(tokenizer, args.calibration, args.length)
        for pattern in args.patterns:
            set_pattern(model, pattern)
            print(json.dumps({"pattern": pattern, "loss": round(loss(model, ids, args.batch), 4), "windows": len(ids)}), flush=True)
    if args.tasks:
        tasks: dict[str, list] = {}
        for line in args.tasks.read_text().splitlines():
            record = json.loads(line)
            tasks.setdefault(record["task"], []).append(record)
        for pattern in args.task_patterns:
            set_pattern(model, pattern)
            for name, records in tasks.items():
                right, asked = found(model, tokenizer, records[: args.limit], args.batch)
                print(json.dumps({"pattern": pattern, "task": name, "found": right, "of": asked}), flush=True)


if __name__ == "__main__":
    main()
