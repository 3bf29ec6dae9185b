"""Takes a GPU's memory away from whoever begins to use it: provokes "out of memory" in the middle of somebody's work.

    python tools/gpu/hog.py --drop 1200 --leave 32 --seconds 30

Says "ready", waits until --drop MiB of what was free are taken by others, then allocates all that is left but --leave MiB
and keeps it for --seconds.
"""

import argparse
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drop", type=int, required=True, help="MiB")
    parser.add_argument("--leave", type=int, default=32, help="MiB")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--wait", type=float, default=60, help="seconds until it gives up")
    args = parser.parse_args()

    import torch

    torch.zeros(1, device="cuda")
    mib = 2**20
    baseline = torch.cuda.mem_get_info()[0]
    print("ready, free MiB", baseline // mib, flush=True)
    until = time.monotonic() + args.wait
    while (free := torch.cuda.mem_get_info()[0]) > baseline - args.drop * mib:
        if time.monotonic() > until:
            print("nobody came", flush=True)
            return
        time.sleep(0.001)
    held = []
    size = 4096 * mib
    while size >= 2 * mib:
        if torch.cuda.mem_get_info()[0] - args.leave * mib < size:
            size //= 2
            continue
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            size //= 2
    print("free MiB when it began", free // mib, "and now", torch.cuda.mem_get_info()[0] // mib, flush=True)
    time.sleep(args.seconds)


if __name__ == "__main__":
    main()
