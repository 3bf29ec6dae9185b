"""Does transformers run what `pattern apply` writes as it runs the original with the same pattern?

    python tools/engines/applied_checkpoint.py ORIGINAL APPLIED

Loads APPLIED without flags and ORIGINAL with indexer_types of the same pattern, in fp32, and compares logits bit by bit.
Says which weights transformers found missing or left over in APPLIED.
"""

import json
import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM

TOKENS = 320


def main() -> None:
    original, applied = map(pathlib.Path, sys.argv[1:])
    config = json.loads((applied / "config.json").read_text())
    types = [{"F": "full", "S": "shared"}[letter] for letter in config["index_topk_pattern"]]
    load = {"dtype": torch.float32, "attn_implementation": "eager"}
    ours, found = AutoModelForCausalLM.from_pretrained(applied, output_loading_info=True, **load)
    theirs = AutoModelForCausalLM.from_pretrained(original, indexer_types=types, **load)
    owners = [i for i, layer in enumerate(ours.model.layers) if layer.self_attn.indexer is not None]
    ids = torch.randint(0, config["vocab_size"], (1, TOKENS), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = (ours(ids).logits - theirs(ids).logits).abs().max().item()
    print(f"transformers {transformers.__version__}: indexers on layers {owners}")
    print(f"missing {sorted(found['missing_keys'])}, unexpected {sorted(found['unexpected_keys'])}")
    print(f"largest difference of logits over {TOKENS} tokens: {difference}")
    if difference != 0 or found["missing_keys"] or found["unexpected_keys"]:
        sys.exit(1)


main()
