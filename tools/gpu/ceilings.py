"""What the machine can do at most, as one JSON line: copies, matrix products, transfers, kernel launches.

    python tools/gpu/ceilings.py
"""

import json
import statistics
import sys


def main():
    import torch

    if not torch.cuda.is_available():
        sys.exit("ceilings.py needs a CUDA device")

    def seconds(work, repeats=7, inner=1):
        work()
        times = []
        for _ in range(repeats):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(inner):
                work()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1000 / inner)
        return statistics.median(times)

    result = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    source = torch.randint(0, 255, (4 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    result["copy_bytes_per_second"] = 2 * source.numel() / seconds(lambda: target.copy_(source))
    del source, target

    n = 8192
    for name, dtype, tf32 in [
        ("float16", torch.float16, False),
        ("bfloat16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("float32", torch.float32, False),
    ]:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(n, n, device="cuda").to(dtype) for _ in range(2))
        result[f"matmul_{name}_flops_per_second"] = 2 * n**3 / seconds(lambda: a @ b)

    size = 256 << 20
    device = torch.empty(size, dtype=torch.uint8, device="cuda")
    for name, pinned in [("pageable", False), ("pinned", True)]:
        host = torch.ones(size, dtype=torch.uint8, pin_memory=pinned)
        result[f"host_to_device_{name}_bytes_per_second"] = size / seconds(lambda: device.copy_(host))
        result[f"device_to_host_{name}_bytes_per_second"] = size / seconds(lambda: host.copy_(device))

    small = torch.zeros(16, device="cuda")
    result["launch_seconds"] = seconds(lambda: small.add_(1), repeats=5, inner=10000)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
