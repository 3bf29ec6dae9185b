"""Seconds of one training step of a group in PyTorch (autograd), beside `tools/distill/step.js` of the same shapes.

    python tools/distill/pytorch_step.py --layers 4 --batch 4 --threads 2 --steps 6 [--device cuda --states computed --sparse]

Random weights of the demo's geometry; states of every layer given, or computed in the step from those that enter the first
one; targets weighted by values, as indexcache does it. float32 without TF32.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train-demo"))
from model import LATENT_EPS, Geometry, Layer, rotate  # noqa: E402

parser = argparse.ArgumentParser()
for name, default in (("layers", 4), ("batch", 4), ("threads", 2), ("steps", 6)):
    parser.add_argument(f"--{name}", type=int, default=default)
parser.add_argument("--device", default="cpu")
parser.add_argument("--states", choices=("stored", "computed"), default="stored")
parser.add_argument("--sparse", action="store_true", help="rows choose among the keys that the indexer selects")
options = parser.parse_args()
torch.set_num_threads(options.threads)
torch.manual_seed(0)
torch.set_default_device(options.device)
cuda = options.device != "cpu"
g = Geometry()
length, batch = g.window, options.batch
layers = [Layer(g, index, 0.03) for index in range(options.layers)]
for layer in layers:
    layer.requires_grad_(False)
indexer = layers[0].indexer.requires_grad_(True)
optimizer = torch.optim.AdamW(indexer.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0)
given = [torch.randn(batch, length, g.hidden_size, device="cpu").bfloat16() for _ in layers]
everything = torch.ones(length, length, dtype=torch.bool).tril()
frequencies = g.rope_theta ** -(torch.arange(0, g.qk_rope_head_dim, 2) / g.qk_rope_head_dim)
angles = torch.arange(length)[:, None] * frequencies[None]
cos, sin = angles.cos(), angles.sin()
heads, nope, rope = g.num_attention_heads, g.qk_nope_head_dim, g.qk_rope_head_dim


def latent_of(layer, x):
    h = F.rms_norm(x, (g.hidden_size,), layer.input_layernorm, g.rms_norm_eps)
    return h, F.rms_norm(F.linear(h, layer.q_a_proj), (g.q_lora_rank,), layer.q_a_layernorm, LATENT_EPS)


def target(layer, x, rows, allowed):
    h, latent = latent_of(layer, x)
    q = F.linear(latent[:, rows], layer.q_b_proj).view(batch, len(rows), heads, nope + rope)
    q = torch.cat([q[..., :nope], rotate(q[..., nope:], cos[rows].unsqueeze(1), sin[rows].unsqueeze(1))], -1).transpose(1, 2)
    ckv = F.linear(h, layer.kv_a_proj)
    c = F.rms_norm(ckv[..., : g.kv_lora_rank], (g.kv_lora_rank,), layer.kv_a_layernorm, LATENT_EPS)
    k_rope = rotate(ckv[..., g.kv_lora_rank :], cos, sin).unsqueeze(2).expand(batch, length, heads, rope)
    kv = F.linear(c, layer.kv_b_proj).view(batch, length, heads, nope + g.v_head_dim)
    k = torch.cat([kv[..., :nope], k_rope], -1).transpose(1, 2)
    p = (q @ k.transpose(-1, -2) * (nope + rope) ** -0.5).masked_fill(~allowed, -1e30).softmax(-1)
    o = layer.o_proj.view(g.hidden_size, heads, g.v_head_dim)
    gram = torch.einsum("ohd,ohe->hde", o, o)
    v = kv[..., nope:].transpose(1, 2)
    norms = ((v @ gram) * v).sum(-1).clamp(min=0).sqrt()
    p = (p * norms.unsqueeze(2)).sum(1)
    return p / p.sum(-1, keepdim=True).clamp(min=1e-20)


def states_of_step():
    if options.states == "stored":
        return [x.to(options.device).float() for x in given]
    states = [given[0].to(options.device).float()]
    for layer in layers[:-1]:
        x = states[-1]
        x = x + layer.attention(x, cos, sin, everything, None, True)[0]
        states.append(x + layer.mlp(x)[0])
    return states


def step(number):
    rows = torch.arange(number % 4, length, 4)
    causal = torch.arange(length)[None] <= rows[:, None]
    with torch.no_grad():
        states = states_of_step()
        h, latent = latent_of(layers[0], states[0])
    keys = indexer.keys(h, cos, sin)
    scores = indexer.scores(h[:, rows], indexer.queries(latent[:, rows], cos[rows], sin[rows]), keys)
    allowed = causal
    if options.sparse:
        chosen = scores.detach().masked_fill(~causal, float("-inf")).topk(g.index_topk, -1).indices
        allowed = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, chosen, True) & causal
    by_head = allowed if allowed.dim() == 2 else allowed.unsqueeze(1)
    with torch.no_grad():
        p = sum(target(layer, x, rows, by_head) for layer, x in zip(layers, states, strict=True)) / len(layers)
    log_q = scores.masked_fill(~allowed, -1e30).log_softmax(-1)
    loss = (torch.xlogy(p, p) - p * log_q.masked_fill(~allowed, 0)).sum(-1).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(indexer.parameters(), 1.0)
    optimizer.step()
    return loss.item()


step(0)
spent, wall = [], []
for number in range(options.steps):
    cpu, clock = time.process_time(), time.perf_counter()
    step(number)  # ends with a number on the host, so that nothing is still under way
    spent.append(time.process_time() - cpu)
    wall.append(time.perf_counter() - clock)
middle = options.steps // 2
print(
    json.dumps(
        {
            "torch": torch.__version__,
            **vars(options),
            "cpu_s": round(sorted(spent)[middle], 5),
            "wall_s": round(min(wall), 5),
            "median_wall_s": round(sorted(wall)[middle], 5),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            **({"device_mb": round(torch.cuda.max_memory_reserved() / 2**20)} if cuda else {}),
        }
    )
)
