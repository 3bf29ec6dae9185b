"""What the transformers scripts here share: arguments and plans, loading, F/S patterns, timing, a JSON line for each run.

A run that does not fit in memory is reported as skipped, any other error as failed, and the next run goes on.
"""

import argparse
import gc
import json
import math
import pathlib
import re
import resource
import sys
import time
import traceback

DTYPES = ("float32", "float16", "bfloat16")
ATTENTIONS = ("eager", "sdpa")
EXPERTS = ("auto", "grouped_mm", "batched_mm", "eager")
OTHERS = ("device", "chunk_bytes", "profile")  # indexcache_loss.js reads these of the same plan


def parser_of(doc):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--ids", help='JSON file: [[id, ...], ...], or that under "sequences"')
    source.add_argument("--plan", help="JSON file: a list of runs, each an object of the options below, with its ids")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--attention", choices=ATTENTIONS, default="sdpa")
    parser.add_argument("--pattern", help="F/S pattern (glm_moe_dsa); the checkpoint's own where absent")
    parser.add_argument("--experts", choices=EXPERTS, default="auto", help="auto: grouped_mm where it runs, else eager")
    parser.add_argument("--tf32", choices=["on", "off"], default="off", help="TF32 in fp32 matrix products on CUDA")
    parser.add_argument("--repeats", type=int, default=3, help="0: the warm-up itself is timed")
    parser.add_argument("--name", help="for the line, to tell it by")
    parser.add_argument("--device", choices=["cuda", "cpu"], default=None, help="cuda where there is one")
    return parser


class Run(argparse.Namespace):
    """One line's options."""


def runs_of(parser, args):
    """The runs asked for; each option that a plan's entry leaves out is the command line's."""
    options = {name: value for name, value in vars(args).items() if name not in ("checkpoint", "plan", "device")}
    if args.plan is None:
        return [Run(entry=0, **options)]
    allowed = {action.dest: action for action in parser._actions if action.dest in options}
    runs = []
    for entry, given in enumerate(json.loads(pathlib.Path(args.plan).read_text())):
        given = {name: value for name, value in given.items() if name not in OTHERS}
        if isinstance(given.get("tf32"), bool):
            given["tf32"] = "on" if given["tf32"] else "off"
        for name, value in given.items():
            if name not in allowed:
                parser.error(f"{args.plan}, entry {entry}: no option {name}")
            if allowed[name].choices is not None and value not in allowed[name].choices:
                parser.error(f"{args.plan}, entry {entry}: {name} {value!r} is none of {allowed[name].choices}")
        if "ids" not in given:
            parser.error(f"{args.plan}, entry {entry}: no ids")
        runs.append(Run(entry=entry, **options | given))
    return runs


def execute(parser, measure):
    """Does every run and prints its line, with what `measure(model, run, device)` gives; gives an exit code."""
    args = parser.parse_args()
    runs = runs_of(parser, args)

    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here: --device cpu")
    base = {
        "engine": "transformers",
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "cuda": torch.version.cuda if device == "cuda" else None,
        "device": device,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }
    groups = {}
    for run in runs:
        groups.setdefault((run.dtype, run.attention, run.experts), []).append(run)
    failures = 0
    for (dtype, attention, experts), group in groups.items():
        loaded, problem = attempt(lambda: Loaded(args.checkpoint, dtype, attention, experts, device))
        for run in group:
            line = base | {key: value for key, value in vars(run).items() if key != "repeats"}
            outcome = problem
            if loaded is not None:
                line |= {"experts": loaded.experts, "model_bytes": loaded.bytes}
                result, outcome = attempt(lambda: one(loaded, run, device, measure))
                line |= result or {}
            line |= outcome
            failures += "failed" in line
            print(json.dumps(line), flush=True)
            release(device)
        del loaded
        release(device)
    return 1 if failures else 0


def one(loaded, run, device, measure):
    import torch

    # "highest" is plain fp32; "high" lets matrix products take TF32.
    torch.set_float32_matmul_precision("high" if run.tf32 == "on" else "highest")
    pattern = loaded.patterns.set(run.pattern)
    with torch.inference_mode():
        return {"pattern": pattern} | measure(loaded.model, run, device)


def attempt(action):
    """(result, {}) or (None, what the line says instead). No traceback outlives this: it would hold on to tensors."""
    import torch

    try:
        return action(), {}
    except (torch.OutOfMemoryError, MemoryError) as error:
        return None, {"skipped": f"out of memory: {described(error)}"}
    except Exception as error:
        if "can't allocate memory" in str(error):  # the CPU allocator's RuntimeError
            return None, {"skipped": f"out of memory: {described(error)}"}
        return None, {"failed": f"{type(error).__name__}: {described(error)}"}


def described(error):
    """The size asked for, or the message's first line, and the line of transformers' code (else ours) it came from."""
    text = str(error).strip() or type(error).__name__
    size = re.search(r"[Tt]ried to allocate [\d.]+ \w+", text)
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((f for f in reversed(frames) if "transformers/models" in f.filename.replace("\\", "/")), frames[-1])
    at = f"{pathlib.Path(frame.filename).name}:{frame.lineno}: {frame.line}"
    return f"{size[0] if size else text.splitlines()[0]} ({at})"


class Loaded:
    """A checkpoint in memory, with the patterns that it can take."""

    def __init__(self, folder, dtype, attention, experts, device):
        import torch
        from transformers import AutoModelForCausalLM

        kind = getattr(torch, dtype)
        self.experts = chosen_experts(kind, device) if experts == "auto" else experts
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=kind,
            attn_implementation=attention,
            experts_implementation=self.experts,
            output_loading_info=True,
        )
        missing = sorted(info["missing_keys"]) or sorted(info["mismatched_keys"])
        if missing:
            raise ValueError(f"{folder} lacks {len(missing)} tensors, the first {missing[0]}")
        if model.config._attn_implementation != attention:
            raise ValueError(f"{folder} does not take {attention}")
        self.model = model.eval().to(device)
        self.bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        self.patterns = Patterns(model)


def chosen_experts(dtype, device):
    """grouped_mm where this torch has it for the dtype and device. batched_mm copies a token's experts: too much here."""
    import torch

    try:
        rows = torch.zeros(32, 32, dtype=dtype, device=device)
        experts = torch.zeros(2, 32, 32, dtype=dtype, device=device)
        torch.nn.functional.grouped_mm(
            rows, experts.transpose(-2, -1), offs=torch.tensor([16, 32], dtype=torch.int32, device=device)
        )
        return "grouped_mm"
    except (AttributeError, NotImplementedError, RuntimeError):
        return "eager"


class Patterns:
    """Sets the pattern of a loaded glm_moe_dsa model by taking away the indexers of Shared layers."""

    def __init__(self, model):
        self.type = model.config.model_type
        self.attentions = [layer.self_attn for layer in model.model.layers]
        self.indexers = [attention.indexer for attention in self.attentions]
        self.own = "".join("S" if indexer is None else "F" for indexer in self.indexers)

    def set(self, pattern):
        pattern = pattern or self.own
        if pattern != self.own and self.type != "glm_moe_dsa":
            raise ValueError(f"transformers shares no indices in {self.type}")
        if not re.fullmatch("F[FS]*", pattern) or len(pattern) != len(self.own):
            raise ValueError(f"{pattern} is no pattern of {len(self.own)} layers that begins with F")
        if any(wanted == "F" and own == "S" for wanted, own in zip(pattern, self.own)):
            raise ValueError(f"{pattern} asks for indexers that the checkpoint ({self.own}) lacks")
        for attention, indexer, letter in zip(self.attentions, self.indexers, pattern):
            attention.indexer = indexer if letter == "F" else None
            attention.skip_topk = letter == "S"
        return pattern


def sequences_of(path, vocabulary):
    """The id file's sequences. An id outside the vocabulary would end a CUDA process, so it is looked for here."""
    sequences = json.loads(pathlib.Path(path).read_text())
    if isinstance(sequences, dict):
        sequences = sequences["sequences"]
    for i, ids in enumerate(sequences):
        if len(ids) < 2 or min(ids) < 0 or max(ids) >= vocabulary:
            raise ValueError(f"{path}: sequence {i} has fewer than 2 ids, or ids outside 0..{vocabulary - 1}")
    if not sequences:
        raise ValueError(f"{path}: no sequences")
    return sequences


def synchronize(device):
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def release(device):
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def reset_peak(device):
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak(device):
    """Peak memory since reset_peak; on CPU the process's own since its start."""
    if device == "cuda":
        import torch

        return {
            "peak_memory_bytes": torch.cuda.max_memory_allocated(),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
        }
    return {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def timed(action, device):
    """(seconds, result), with nothing left under way on either side."""
    synchronize(device)
    started = time.perf_counter()
    result = action()
    synchronize(device)
    return time.perf_counter() - started, result


def timings(action, repeats, device):
    """(seconds of each repeat, the last one's result), after one call to warm up; with 0 repeats, of that one alone."""
    if repeats > 0:
        action()
    reset_peak(device)
    seconds = []
    for _ in range(max(repeats, 1)):
        took, result = timed(action, device)
        seconds.append(took)
    return seconds, result


def finite(value):
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def main(parser, measure):
    sys.exit(execute(parser, measure))
