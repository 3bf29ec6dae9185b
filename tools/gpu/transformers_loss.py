"""LM loss of a Hugging Face checkpoint in transformers: seconds, memory and losses, one JSON line for each entry.

    python tools/gpu/transformers_loss.py models/demo --plan plan.json

plan.json is a list of entries: `ids` (a JSON file with a list of token id lists of one length), `dtype`, `attention`
(eager or sdpa), and optionally `batch` (sequences a pass, 1), `pattern` (F/S, glm_moe_dsa only), `repeats` (3), `tf32`
(false) and `name`. Running out of memory is a result: the line then has `skipped`.
"""

import argparse
import gc
import json
import statistics
import sys
import time


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--plan", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--experts", default="batched_mm")
    args = parser.parse_args()
    with open(args.plan) as file:
        plan = json.load(file)

    import torch
    import transformers
    from transformers import AutoModelForCausalLM

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    loaded, model = None, None
    for entry in plan:
        line = {"engine": "transformers", "transformers": transformers.__version__, "torch": torch.__version__} | entry
        wanted = (entry["dtype"], entry["attention"], entry.get("pattern"))
        torch.backends.cuda.matmul.allow_tf32 = entry.get("tf32", False)
        try:
            if wanted != loaded:
                model = None
                gc.collect()
                pattern = entry.get("pattern")
                types = {} if pattern is None else {"indexer_types": ["full" if x == "F" else "shared" for x in pattern]}
                model = AutoModelForCausalLM.from_pretrained(
                    args.checkpoint,
                    dtype=getattr(torch, entry["dtype"]),
                    attn_implementation=entry["attention"],
                    experts_implementation=args.experts,
                    **types,
                )
                model = model.to(args.device).eval()
                loaded = wanted
            with open(entry["ids"]) as file:
                ids = torch.tensor(json.load(file))
            line |= measure(torch, model, ids, entry, args.device)
        except torch.OutOfMemoryError as error:
            line["skipped"] = "out of memory: " + str(error).splitlines()[0]
        print(json.dumps(line), flush=True)
        gc.collect()
        if args.device == "cuda":
            torch.cuda.empty_cache()


def measure(torch, model, ids, entry, device):
    batch, repeats = entry.get("batch", 1), entry.get("repeats", 3)
    on_gpu = device == "cuda"
    wait = torch.cuda.synchronize if on_gpu else (lambda: None)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for index in range(repeats + 1):
        started = time.perf_counter()
        losses = []
        with torch.inference_mode():
            for first in range(0, len(ids), batch):
                losses += sequence_losses(torch, model, ids[first : first + batch].to(device))
        wait()
        if index > 0 or repeats == 0:
            seconds.append(time.perf_counter() - started)
    tokens = ids.numel()
    median = statistics.median(seconds)
    return {
        "sequences": len(ids),
        "length": ids.shape[1],
        "seconds": seconds,
        "seconds_median": median,
        "tokens_per_second": tokens / median,
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "losses": losses,
    }


def sequence_losses(torch, model, ids, rows=4096):
    """Mean next-token loss of each sequence in nats: logits in rows, log-softmax in fp32."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    targets = ids[:, 1:].reshape(-1)
    flat = hidden[:, :-1].reshape(-1, hidden.shape[-1])
    parts = [
        torch.nn.functional.cross_entropy(
            model.lm_head(flat[at : at + rows]).float(), targets[at : at + rows], reduction="none"
        )
        for at in range(0, len(flat), rows)
    ]
    return torch.cat(parts).reshape(ids.shape[0], -1).double().mean(1).tolist()


if __name__ == "__main__":
    sys.exit(main())
