"""What transformers computes with a checkpoint that `indexcache distill` made of the demo model.

    python tools/oracle/distilled.py FOLDER [--out test/fixtures/demo-distilled]

Writes the trained indexers alone (`model.safetensors`; the test puts them into the demo model) and the losses and some
logits of transformers in fp32, with the pattern that the folder's config.json names (`transformers.json`).
"""

import argparse
import base64
import json
from pathlib import Path

import torch
import transformers
from reference import load
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--text", default=ROOT / "calibration" / "held-out.jsonl")
parser.add_argument("--out", default=ROOT / "test" / "fixtures" / "demo-distilled")
options = parser.parse_args()
LENGTH, ROWS = 512, [0, 255, 511]

model, info = load(options.folder)
# Shared layers have no indexer of their own in transformers: theirs are the only tensors that it does not use.
assert not info["missing_keys"] and not info["mismatched_keys"], info
assert all(".indexer." in key for key in info["unexpected_keys"]), info["unexpected_keys"]
full = [layer for layer, kind in enumerate(model.config.indexer_types) if kind == "full"]
assert all(int(key.split(".")[2]) not in full for key in info["unexpected_keys"])
tokenizer = AutoTokenizer.from_pretrained(options.folder)

sequences = []
for line in Path(options.text).read_text().splitlines():
    document = json.loads(line)
    ids = document.get("input_ids") or tokenizer(document["text"])["input_ids"]
    if len(ids) >= LENGTH and len(sequences) < 2:
        window = torch.tensor([ids[:LENGTH]])
        with torch.no_grad():
            logits = model(window).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], window[0, 1:]).item()
        packed = base64.b64encode(logits[ROWS].numpy().astype("<f4").tobytes()).decode()
        sequences.append({"input_ids": ids[:LENGTH], "loss": loss, "logits": packed})

out = Path(options.out)
out.mkdir(exist_ok=True)
with safe_open(Path(options.folder) / "model.safetensors", "pt") as tensors:
    names = [key for key in tensors.keys() if ".indexer." in key and int(key.split(".")[2]) in full]
    save_file({key: tensors.get_tensor(key) for key in names}, out / "model.safetensors")
record = {
    "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
    "pattern": "".join("F" if layer in full else "S" for layer in range(model.config.num_hidden_layers)),
    "rows": ROWS,
    "sequences": sequences,
}
(out / "transformers.json").write_text(json.dumps(record) + "\n")
print(out, record["pattern"], [sequence["loss"] for sequence in sequences])
