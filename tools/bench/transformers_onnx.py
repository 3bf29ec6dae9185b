"""Exports a checkpoint with transformers' own experimental ONNX exporter and times its prefill on ONNX Runtime, CPU.

    python tools/bench/transformers_onnx.py models/demo --lengths 1024,4096 --threads 2 --repeats 3

One JSON line for the export, then one for each length; a length that would not fit --memory is skipped and says so.
The graph is the exporter's own: fp32, dense masked attention, the checkpoint's own F/S pattern, expanded cache.
The export runs in a process of its own, so that the peak RSS of a prefill is that of ONNX Runtime alone.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import pathlib
import resource
import statistics
import sys
import tempfile
import time


def peak_rss():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def estimate(config, length, experts):
    """Bytes that a prefill needs at least: three copies of the widest score tensor, and gathered expert weights."""
    scores = 3 * 4 * length * length * max(config["num_attention_heads"], config["index_n_heads"])
    gathered = 12 * length * config["num_experts_per_tok"] * config["moe_intermediate_size"] * config["hidden_size"]
    return scores + (gathered if experts == "batched_mm" else 0)


def export(args, path):
    import numpy
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, DynamicCache
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(
        args.checkpoint,
        dtype=torch.float32,
        attn_implementation=args.attention,
        experts_implementation=args.experts,
    ).eval()
    generator = torch.Generator().manual_seed(0)
    past, new = 5, 7
    ids = torch.randint(0, model.config.vocab_size, (1, past + new), generator=generator)
    positions = torch.arange(past + new)[None]
    inputs = {"input_ids": ids, "position_ids": positions, "use_cache": False, "logits_to_keep": 1}
    if args.cache:
        with torch.no_grad():
            cache = model(ids[:, :past], past_key_values=DynamicCache(config=model.config), use_cache=True)
        inputs = {
            "input_ids": ids[:, past:],
            "position_ids": positions[:, past:],
            "past_key_values": cache.past_key_values,
            "use_cache": True,
            "logits_to_keep": 1,
        }
    started = time.perf_counter()
    # The exporter talks on stdout.
    with contextlib.redirect_stdout(sys.stderr):
        OnnxExporter().export(model, inputs, config=OnnxConfig(dynamic=True, output_path=str(path)))
    seconds = time.perf_counter() - started
    check = torch.randint(0, model.config.vocab_size, (1, args.check_length), generator=generator)
    # ONNX Runtime's TopK takes the lowest of equal scores, and index scores are often equal (0): compare like with like.
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "oracle"))
    from reference import tied_to_lowest_index

    with torch.no_grad(), tied_to_lowest_index():
        expected = model(check, use_cache=False, logits_to_keep=1).logits.numpy()
    line = {
        "engine": "transformers exporter",
        "stage": "export",
        "transformers": transformers.__version__,
        "attention": args.attention,
        "experts": args.experts,
        "cache": args.cache,
        "seconds": round(seconds, 2),
        "model_bytes": sum(f.stat().st_size for f in path.parent.glob("model.onnx*")),
        "peak_rss_bytes": peak_rss(),
    }
    numpy.savez(path.with_suffix(".check.npz"), ids=check.numpy(), logits=expected)
    path.with_suffix(".export.json").write_text(json.dumps(line))


def feed(session, config, ids):
    """Inputs for a prefill of one sequence: an empty cache where the graph has one."""
    import numpy as np

    feeds = {}
    for item in session.get_inputs():
        if "past_key_values" in item.name:
            if item.name.endswith("indexer_keys"):
                shape = (1, 0, config["index_head_dim"])
            else:
                keys = config["qk_nope_head_dim"] + config["qk_rope_head_dim"]
                last = config["v_head_dim"] if item.name.endswith("values") else keys
                shape = (1, config["num_attention_heads"], 0, last)
            feeds[item.name] = np.zeros(shape, np.float32)
        elif "position" in item.name:
            feeds[item.name] = np.arange(ids.shape[1], dtype=np.int64)[None]
        else:
            feeds[item.name] = ids
    return feeds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--lengths", default="1024", help="comma-separated")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="eager")
    parser.add_argument("--experts", choices=["grouped_mm", "batched_mm"], default="grouped_mm")
    parser.add_argument("--cache", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=float, default=12, help="GB that a prefill may take")
    parser.add_argument("--check-length", type=int, default=200, help="tokens on which logits are compared")
    parser.add_argument("--keep", type=pathlib.Path, help="folder to leave the model in")
    args = parser.parse_args()

    import numpy as np
    import onnxruntime

    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "model.onnx"
        child = multiprocessing.get_context("spawn").Process(target=export, args=(args, path))
        child.start()
        child.join()
        if child.exitcode != 0:
            sys.exit(f"the export failed with exit code {child.exitcode}")
        line = json.loads(path.with_suffix(".export.json").read_text())
        check = np.load(path.with_suffix(".check.npz"))
        config = json.loads((pathlib.Path(args.checkpoint) / "config.json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        logits = next(item.name for item in session.get_outputs() if "logits" in item.name)
        difference = np.abs(session.run([logits], feed(session, config, check["ids"]))[0] - check["logits"]).max()
        line["nodes"] = count_nodes(path)
        line["check_length"] = args.check_length
        line["logit_difference"] = float(f"{difference:.2g}")
        print(json.dumps(line), flush=True)
        random = np.random.default_rng(0)
        # Everything is fetched: what a caller that goes on decoding has to do.
        for length in sorted(int(part) for part in args.lengths.split(",")):
            line = {
                "engine": "transformers exporter",
                "stage": "prefill",
                "onnxruntime": onnxruntime.__version__,
                "threads": args.threads,
                "length": length,
            }
            needs = estimate(config, length, args.experts)
            if needs > args.memory * 1e9:
                reason = f"needs about {needs / 1e9:.0f} GB, more than {args.memory:g}"
                print(json.dumps(line | {"skipped": reason}), flush=True)
                continue
            feeds = feed(session, config, random.integers(0, config["vocab_size"], (1, length)))
            seconds = []
            try:
                for _ in range(args.repeats):
                    started = time.perf_counter()
                    session.run(None, feeds)
                    seconds.append(time.perf_counter() - started)
            except Exception as error:  # ONNX Runtime raises its own types
                print(json.dumps(line | {"skipped": str(error).splitlines()[0]}), flush=True)
                continue
            median = statistics.median(seconds)
            line |= {
                "repeats": args.repeats,
                "seconds_min": round(min(seconds), 4),
                "seconds_median": round(median, 4),
                "tokens_per_second": round(length / median, 1),
                "peak_rss_bytes": peak_rss(),
            }
            print(json.dumps(line), flush=True)


def count_nodes(path):
    import onnx

    return len(onnx.load(path, load_external_data=False).graph.node)


if __name__ == "__main__":
    main()
