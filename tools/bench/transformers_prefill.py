"""Prefills of a Hugging Face checkpoint on a CPU in fp32, when asked: a JSON line of token ids on stdin, one of results on stdout.

    echo '{"ids": [1, 2, 3]}' | python tools/bench/transformers_prefill.py models/demo --threads 2 --attention sdpa

The first line of the output names versions. Seconds are of the clock and of all threads' CPU time. With "ties": "lowest" in a
request, equal index scores are taken lowest index first, which makes logits comparable (and the run slower).
Lengths beyond the config's window run with plain position ids. Peak RSS is the process's own so far.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import sys
import time


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
    parser.add_argument("--experts", choices=["eager", "grouped_mm", "batched_mm"], default="grouped_mm")
    parser.add_argument("--pattern", help="F/S pattern (glm_moe_dsa); the checkpoint's own where absent")
    args = parser.parse_args()

    import torch
    import transformers
    from transformers import AutoModelForCausalLM

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "oracle"))
    from reference import tied_to_lowest_index

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
    print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}), flush=True)
    with torch.inference_mode():
        model(torch.arange(64)[None], use_cache=True, logits_to_keep=1)  # warm-up
        for line in sys.stdin:
            request = json.loads(line)
            ids = torch.tensor([request["ids"]])
            ties = tied_to_lowest_index() if request.get("ties") == "lowest" else contextlib.nullcontext()
            try:
                with ties:
                    started = time.perf_counter(), time.process_time()
                    out = model(ids, use_cache=True, logits_to_keep=1)
                    result = {
                        "seconds": time.perf_counter() - started[0],
                        "cpu": time.process_time() - started[1],
                        "logits": out.logits[0, -1].tolist(),
                        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                    }
                    del out
            except (RuntimeError, MemoryError) as error:
                result = {"skipped": str(error).splitlines()[0]}
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
