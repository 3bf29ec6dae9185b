"""Times prefill of a Hugging Face checkpoint on CPU in fp32: one JSON line for each length.

    python tools/bench/transformers_prefill.py models/demo --lengths 1024,4096 --threads 2 --attention sdpa --repeats 3

Lengths beyond the config's window run with plain position ids; tokens are random. Peak RSS is the process's own up to
the end of that length, so lengths are run in ascending order.
"""

import argparse
import json
import os
import resource
import statistics
import time


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--lengths", default="1024", help="comma-separated")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
    parser.add_argument("--experts", choices=["eager", "grouped_mm", "batched_mm"], default="grouped_mm")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pattern", help="F/S pattern (glm_moe_dsa); the checkpoint's own where absent")
    args = parser.parse_args()

    import torch
    import transformers
    from transformers import AutoModelForCausalLM

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    overrides = {}
    if args.pattern:
        overrides["indexer_types"] = ["full" if letter == "F" else "shared" for letter in args.pattern]
    model = AutoModelForCausalLM.from_pretrained(
        args.checkpoint,
        dtype=torch.float32,
        attn_implementation=args.attention,
        experts_implementation=args.experts,
        **overrides,
    ).eval()
    if args.pattern:
        built = ["F" if layer.self_attn.indexer is not None else "S" for layer in model.model.layers]
        assert "".join(built) == args.pattern, f"{model.config.model_type} does not take a pattern"
    generator = torch.Generator().manual_seed(0)
    for length in sorted(int(part) for part in args.lengths.split(",")):
        ids = torch.randint(0, model.config.vocab_size, (1, length), generator=generator)
        line = {
            "engine": "transformers",
            "transformers": transformers.__version__,
            "torch": torch.__version__.split("+")[0],
            "attention": args.attention,
            "experts": args.experts,
            "pattern": args.pattern,
            "threads": args.threads,
            "length": length,
        }
        try:
            seconds = []
            with torch.inference_mode():
                model(ids[:, : min(length, 64)], use_cache=True, logits_to_keep=1)  # warm-up
                for _ in range(args.repeats):
                    started = time.perf_counter()
                    out = model(ids, use_cache=True, logits_to_keep=1)
                    seconds.append(time.perf_counter() - started)
                    assert out.logits.shape[1] == 1
                    del out
        except (RuntimeError, MemoryError) as error:
            print(json.dumps(line | {"skipped": str(error).splitlines()[0]}), flush=True)
            continue
        median = statistics.median(seconds)
        line |= {
            "repeats": args.repeats,
            "seconds_min": round(min(seconds), 4),
            "seconds_median": round(median, 4),
            "tokens_per_second": round(length / median, 1),
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
