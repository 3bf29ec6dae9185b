"""The whole loss landscape of a checkpoint: what every pattern costs on every window, by a walk over the tree of patterns.

    python landscape.py ../../models/demo --windows windows.json --sets calibration held-out --out demo.landscape

Patterns that agree in layers 0 to i have the same states there, so the walk runs a layer once for each prefix. Of one
prefix, the Full and the Shared child of a layer have queries, keys, values and attention logits in common; they differ in
the mask, and so in what follows it. That is 2^(L-1) - 1 layers with both children, where one pass a pattern would be
L x 2^(L-1).

Everything is float32 with TF32 off; top-k is exact, ties go to the lowest index. For each pattern and window:

- nll: mean over positions 1 to T-1 of -log p(token | tokens before it), in nats
- kl: mean over the same positions of KL(p of the all-F pattern || p of this one) over the whole vocabulary, in nats

The file is one line of JSON (its fields: see `header`), a newline, then for each set in the header's order two arrays of
little-endian float32, nll and kl, both [patterns, sequences] with sequences last. Bit i-1 of a pattern's index is 1 where
layer i is Full, for i = 1 to L-1; layer 0 is always Full. So index 0 is FSS...S, and the last one is all F.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "train-demo"))
from model import LATENT_EPS, DemoModel, Layer, restore, rotate, select  # noqa: E402


class Walk:
    """All patterns of a model on a batch of windows [B, T]."""

    def __init__(self, model: DemoModel, ids: torch.Tensor):
        self.model, self.ids, self.g = model, ids, model.g
        length = ids.shape[1]
        self.cos, self.sin, self.causal = model.cos[:length], model.sin[:length], model.causal[:length, :length]
        layers = len(model.layers)
        shape = (1 << (layers - 1), ids.shape[0])
        self.nll = torch.full(shape, torch.nan, device=ids.device, dtype=torch.float64)
        self.kl = self.nll.clone()
        self.full = None  # log-probabilities of the all-F pattern, the first one that the walk reaches

    @torch.no_grad()
    def run(self) -> tuple[np.ndarray, np.ndarray]:
        """nll and kl [patterns, B]."""
        self.descend(0, F.embedding(self.ids, self.model.embed_tokens), None, 0)
        for values in (self.nll, self.kl):
            if not torch.isfinite(values).all():
                pattern, window = (~torch.isfinite(values)).nonzero()[0].tolist()
                raise SystemExit(f"not a finite number: pattern {pattern}, window {window} of the batch")
        return self.nll.float().cpu().numpy(), self.kl.float().cpu().numpy()

    def descend(self, index: int, x: torch.Tensor, inherited: torch.Tensor | None, pattern: int) -> None:
        """Everything below a prefix: x [B, T, D] enters layer `index`, `inherited` is the mask of its last Full layer."""
        if index == len(self.model.layers):
            self.measure(x, pattern)
            return
        layer = self.model.layers[index]
        logits, values, own = self.attend(layer, x)
        full = self.leave(layer, x, logits, values, own)
        shared = None if inherited is None else self.leave(layer, x, logits, values, inherited)
        del logits, values
        # Full first, so that the first leaf is the all-F pattern.
        self.descend(index + 1, full, own, pattern | (1 << index >> 1))
        if shared is not None:
            self.descend(index + 1, shared, inherited, pattern)

    def attend(self, layer: Layer, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Attention logits [B, H, T, T], values [B, H, T, Dv] and the layer's own selection [B, T, T]."""
        g, (b, s, _) = self.g, x.shape
        heads, nope, rope = g.num_attention_heads, g.qk_nope_head_dim, g.qk_rope_head_dim
        h = F.rms_norm(x, (g.hidden_size,), layer.input_layernorm, g.rms_norm_eps)
        latent = F.rms_norm(F.linear(h, layer.q_a_proj), (g.q_lora_rank,), layer.q_a_layernorm, LATENT_EPS)
        q = F.linear(latent, layer.q_b_proj).view(b, s, heads, nope + rope)
        cos, sin = self.cos.unsqueeze(1), self.sin.unsqueeze(1)
        q = torch.cat([q[..., :nope], rotate(q[..., nope:], cos, sin)], -1).transpose(1, 2)
        ckv = F.linear(h, layer.kv_a_proj)
        c = F.rms_norm(ckv[..., : g.kv_lora_rank], (g.kv_lora_rank,), layer.kv_a_layernorm, LATENT_EPS)
        k_rope = rotate(ckv[..., g.kv_lora_rank :], self.cos, self.sin).unsqueeze(2).expand(b, s, heads, rope)
        kv = F.linear(c, layer.kv_b_proj).view(b, s, heads, nope + g.v_head_dim)
        k = torch.cat([kv[..., :nope], k_rope], -1).transpose(1, 2)
        logits = (q * (nope + rope) ** -0.5) @ k.transpose(-1, -2)
        keys = layer.indexer.keys(h, self.cos, self.sin)
        queries = layer.indexer.queries(latent, self.cos, self.sin)
        # A sum of 0 x negative weights is -0, which `select` would put below 0.
        scores = layer.indexer.scores(h, queries, keys) + 0.0
        return logits, kv[..., nope:].transpose(1, 2), select(scores, self.causal, g.index_topk)

    def leave(self, layer: Layer, x, logits, values, keep) -> torch.Tensor:
        """What leaves the layer when its attention sees the keys of `keep`."""
        b, s, _ = x.shape
        seen = logits.masked_fill(~keep.unsqueeze(1), float("-inf")).softmax(-1) @ values
        x = x + F.linear(seen.transpose(1, 2).reshape(b, s, -1), layer.o_proj)
        return x + layer.mlp(x)[0]

    def measure(self, x: torch.Tensor, pattern: int) -> None:
        g = self.g
        x = F.rms_norm(x[:, :-1], (g.hidden_size,), self.model.norm, g.rms_norm_eps)
        logp = F.linear(x, self.model.lm_head).log_softmax(-1)
        if self.full is None:
            self.full = logp
        self.nll[pattern] = -logp.gather(-1, self.ids[:, 1:, None]).squeeze(-1).double().mean(-1)
        self.kl[pattern] = (self.full.exp() * (self.full - logp)).sum(-1).double().mean(-1)


def header(folder: Path, model: DemoModel, sets: list[dict]) -> dict:
    weights = (folder / "model.safetensors").read_bytes()
    return {
        "format": 1,
        "layers": model.g.num_hidden_layers,
        "indexTopk": model.g.index_topk,
        "weights": hashlib.sha256(weights).hexdigest(),  # of model.safetensors
        "sets": [
            # hash: what indexcache says of the windows
            {"name": s["name"], "hash": s["hash"], "sequences": len(s["windows"]), "tokens": len(s["windows"][0])}
            for s in sets
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--batch", type=int, default=64, help="windows that walk together")
    parser.add_argument("--limit", type=int, help="only the first windows of each set")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = restore(args.model).to(device)
    given = {s["name"]: s for s in json.loads(args.windows.read_text())["sets"]}
    sets = [given[name] for name in args.sets]
    for s in sets:
        s["windows"] = s["windows"][: args.limit]
    windows = torch.tensor([w for s in sets for w in s["windows"]], device=device)
    began = time.time()
    parts = [Walk(model, part).run() for part in windows.split(args.batch)]
    nll, kl = (np.concatenate(values, axis=1) for values in zip(*parts))
    with args.out.open("wb") as out:
        out.write(json.dumps(header(args.model, model, sets)).encode() + b"\n")
        at = 0
        for s in sets:
            columns = slice(at, at + len(s["windows"]))
            for values in (nll, kl):
                out.write(np.ascontiguousarray(values[:, columns], dtype="<f4").tobytes())
            at = columns.stop
    means = nll.mean(1)
    print(
        f"{args.out.name}: {len(nll)} patterns, {len(windows)} windows, {time.time() - began:.1f} s, "
        f"all F {means[-1]:.4f}, best {means.min():.4f}, worst {means.max():.4f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
