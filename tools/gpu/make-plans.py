"""Writes the id files and plans of docs/gpu.md: plans for indexcache_loss.js and for transformers_loss.py.

    python tools/gpu/make-plans.py FOLDER --demo-ids demo-ids.json --random-ids /tmp/random

FOLDER gets demo.json, demo-transformers.json, long.json and long-transformers.json.
"""

import argparse
import json
import pathlib


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--demo-ids", required=True)
    parser.add_argument("--random-ids", required=True)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    ids = {length: f"{args.random_ids}/ids-{length}.json" for length in (8192, 32768, 65536, 131072)}
    dtypes = ("float32", "float16")

    def write(name, plan):
        (args.folder / name).write_text(json.dumps(plan, indent=1))

    write(
        "demo.json",
        [
            {"ids": args.demo_ids, "dtype": dtype, "device": device, "pattern": pattern, "repeats": 5}
            for device in ("cuda", "webgpu")
            for dtype in dtypes
            for pattern in ("FFFFFFFFFFFF", "FSSSFSSSFSSS")
        ],
    )
    write(
        "demo-transformers.json",
        [
            {"ids": args.demo_ids, "dtype": dtype, "attention": attention, "batch": batch, "repeats": 3}
            for dtype in dtypes
            for attention in ("sdpa", "eager")
            for batch in (16, 4, 1)
        ],
    )
    runs = [("float16", 8192, 5), ("float32", 8192, 3), ("float16", 32768, 3), ("float16", 65536, 2), ("float16", 131072, 1)]
    write(
        "long.json",
        [
            {"ids": ids[length], "dtype": dtype, "pattern": pattern, "repeats": repeats}
            for dtype, length, repeats in runs
            for pattern in ("FFFF", "FSSS")
        ],
    )
    rivals = [
        ("float16", "sdpa", 8192, 0, 3),
        ("float16", "sdpa", 8192, 2048, 3),
        ("float16", "sdpa", 32768, 0, 0),
        ("float16", "sdpa", 32768, 2048, 1),
        ("float16", "sdpa", 65536, 1024, 0),
        ("float16", "eager", 8192, 0, 3),
        ("float32", "sdpa", 8192, 0, 2),
    ]
    write(
        "long-transformers.json",
        [
            {"ids": ids[length], "dtype": dtype, "attention": attention, "chunk": chunk, "repeats": repeats}
            for dtype, attention, length, chunk, repeats in rivals
        ]
        + [{"ids": ids[8192], "dtype": "float16", "attention": "sdpa", "pattern": "FSSS", "repeats": 3}],
    )


if __name__ == "__main__":
    main()
