"""Measures what this machine's GPU can do at best: one JSON line, to hold other measurements against.

    python tools/gpu/ceilings.py

Copy bandwidth inside the GPU (bytes read and written), matrix products of random data, copies to and from the host from
pageable and pinned memory, and the time of a tiny kernel, launched one by one from Python and replayed as a CUDA graph.
Each figure is the median of `--repeats` timings by CUDA events, after warm-ups. Needs about 9 GiB of GPU memory.
"""

import argparse
import json
import statistics
import subprocess
import sys

GIB = 1 << 30
MIB = 1 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--copy-bytes", type=int, default=4 * GIB)
    parser.add_argument("--host-bytes", type=int, default=256 * MIB)
    parser.add_argument("--size", type=int, default=8192, help="of the square matrices")
    parser.add_argument("--launches", type=int, default=10_000)
    args = parser.parse_args()

    import torch

    if not torch.cuda.is_available():
        sys.exit("ceilings.py measures a CUDA device, and torch sees none here")

    def seconds(action, warmups=3):
        for _ in range(warmups):
            action()
        taken = []
        for _ in range(args.repeats):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            begin.record()
            action()
            end.record()
            torch.cuda.synchronize()
            taken.append(begin.elapsed_time(end) / 1000)
        return statistics.median(taken)

    properties = torch.cuda.get_device_properties(0)
    line = {
        "device": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "driver": driver(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "repeats": args.repeats,
    }

    source = torch.empty(args.copy_bytes, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    took = seconds(lambda: target.copy_(source))
    line["copy_gb_per_second"] = round(2 * args.copy_bytes / took / 1e9, 1)
    del source, target
    torch.cuda.empty_cache()

    line["matmul_size"] = args.size
    line["matmul_tflops"] = {
        name: round(2 * args.size**3 / seconds(product(torch, args.size, dtype, precision)) / 1e12, 1)
        for name, dtype, precision in (
            ("float16", torch.float16, "highest"),
            ("bfloat16", torch.bfloat16, "highest"),
            ("tf32", torch.float32, "high"),
            ("float32", torch.float32, "highest"),
        )
    }
    torch.set_float32_matmul_precision("highest")

    on_device = torch.empty(args.host_bytes, dtype=torch.uint8, device="cuda").random_()
    for memory in ("pageable", "pinned"):
        on_host = torch.ones(args.host_bytes, dtype=torch.uint8, pin_memory=memory == "pinned")
        # non_blocking lets a pinned copy go on by itself, as a pageable one cannot; the events see the whole of both.
        upload = seconds(lambda: on_device.copy_(on_host, non_blocking=True))
        download = seconds(lambda: on_host.copy_(on_device, non_blocking=True))
        line[f"host_to_device_{memory}_gb_per_second"] = round(args.host_bytes / upload / 1e9, 2)
        line[f"device_to_host_{memory}_gb_per_second"] = round(args.host_bytes / download / 1e9, 2)

    one = torch.zeros(1, device="cuda")

    def launches():
        for _ in range(args.launches):
            one.add_(1.0)

    line["launches"] = args.launches
    line["launch_microseconds"] = round(seconds(launches, warmups=1) / args.launches * 1e6, 3)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(1000):
            one.add_(1.0)
    line["graph_kernel_microseconds"] = round(seconds(graph.replay, warmups=1) / 1000 * 1e6, 3)
    print(json.dumps(line), flush=True)


def product(torch, size, dtype, precision):
    """A matrix product to time; the precision is set when it is made, so time it before the next one is."""
    torch.set_float32_matmul_precision(precision)
    left, right = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.matmul(left, right, out=out)


def driver():
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


if __name__ == "__main__":
    main()
