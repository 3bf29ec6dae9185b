"""Of the last run in a trace of kernel-trace.c: time by kernel, and time without any, by what it came before.

    python tools/gpu/kernel_trace.py trace.txt [kernels.tsv]
"""

import collections
import re
import sys

RUNS_APART_NS = 1_500_000
COPIES = {"1": "copy to device", "2": "copy to host", "8": "copy on device"}
KINDS = re.compile(
    r"([A-Za-z_0-9]*(?:gemm|attention|fmha|flash|sdpa|TopK|Slice|Scatter|Norm|Concat|Split|oftmax|Elementwise|Unary"
    r"|Binary|Gather|Rotary|Transpose|Expand|Fill|Cast)[A-Za-z_0-9]*)"
)


def name_of(row):
    if row[0] == "C":
        return COPIES.get(row[4], f"copy of kind {row[4]}")
    found = KINDS.search(row[6])
    return (found.group(1) if found else row[6])[:90]


def sums(pairs):
    """Total and count by name, the largest first."""
    by = collections.defaultdict(lambda: [0, 0])
    for name, nanoseconds in pairs:
        by[name][0] += nanoseconds
        by[name][1] += 1
    return sorted(by.items(), key=lambda item: -item[1][0])


def main():
    with open(sys.argv[1]) as file:
        first = file.readline()
        rows = [line.rstrip("\n").split("\t", 6) for line in file]
    device = sorted((int(row[1]), int(row[2]), row) for row in rows if row[0] in "KCS")
    calls = sorted((int(row[1]), int(row[2]), row[6]) for row in rows if row[0] == "A")
    if not device:
        sys.exit(f"no kernels in the trace: CUPTI said {first.strip()}")
    runs, until = [[]], None
    for begin, end, row in device:
        if until is not None and begin - until > RUNS_APART_NS:
            runs.append([])
        runs[-1].append((begin, end, row))
        until = max(until or 0, end)
    run = [some for some in runs if len(some) > 200][-1]
    start, finish = run[0][0], max(end for _, end, _ in run)
    gaps, at = [], start
    for begin, end, row in run:
        if begin > at:
            gaps.append((name_of(row), begin - at))
        at = max(at, end)
    idle = sum(gap for _, gap in gaps)
    print(f"{len(run)} kernels and copies in {(finish - start) / 1e6:.2f} ms, idle {idle / 1e6:.2f} ms")
    for name, (total, count) in sums((name_of(row), end - begin) for begin, end, row in run)[:45]:
        print(f"{total / 1e6:8.3f} ms {count:5d}x  {name}")
    print("idle before: " + "; ".join(f"{name[:50]} {t / 1e6:.2f} ms {n}x" for name, (t, n) in sums(gaps)[:10]))
    inside = [(name, end - begin) for begin, end, name in calls if start <= begin <= finish]
    print("calls: " + "; ".join(f"{name} {t / 1e6:.2f} ms {n}x" for name, (t, n) in sums(inside)[:10]))
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w") as out:
            for begin, end, row in run:
                fields = [f"{(begin - start) / 1000:.1f}", f"{(end - begin) / 1000:.1f}", row[3], row[4], name_of(row)]
                out.write("\t".join(fields) + "\n")


main()
