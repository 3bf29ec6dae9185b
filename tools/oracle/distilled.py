"""Does transformers load a checkpoint that `indexcache distill` wrote, and lose on it what indexcache says?

    python tools/oracle/distilled.py FOLDER ids.jsonl LOSS      # LOSS: of `indexcache loss FOLDER -p PATTERN -c ids.jsonl --json`
"""

import json
import sys
from pathlib import Path

import torch
from reference import load

folder, ids, stated = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
model, info = load(folder)
assert not info["missing_keys"], info["missing_keys"]
losses = []
with torch.no_grad():
    for line in ids.read_text().splitlines():
        window = torch.tensor([json.loads(line)["input_ids"]])
        logits = model(window).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, window[0, 1:]).item())
loss = sum(losses) / len(losses)
print(json.dumps({"folder": Path(folder).name, "transformers": loss, "indexcache": stated, "apart": abs(loss - stated)}))
assert abs(loss - stated) < 1e-4
