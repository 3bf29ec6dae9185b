"""Losses and gradients of one group of layers by PyTorch's autograd: what `src/graph/training` has to reproduce.

    python tools/oracle/distill.py            # writes test/fixtures/{glm-groups,v32-yarn,axk2-groups}/distill.json

Hidden states and weights are those of transformers in fp32; the indexer and the target are written here once more, from
their formulas, in float64.
"""

import base64
import json
import math
from pathlib import Path

import numpy as np
import torch
from reference import load

FIXTURES = Path(__file__).resolve().parents[2] / "test" / "fixtures"
CASES = [("dense", "values"), ("sparse", "mass")]
GROUPS = {"glm-groups": (1, 4), "v32-yarn": (1, 3), "axk2-groups": (1, 4)}
LENGTH, BATCH, STRIDE = 24, 2, 3
TENSORS = ("wq_b.weight", "wk.weight", "k_norm.weight", "k_norm.bias", "weights_proj.weight")


def rope(x, cos, sin, interleaved):
    """Rotates the first 2 x cos.shape[-1] of the last axis; x is [batch, rows, heads, dim], cos [rows, pairs]."""
    pairs = cos.shape[-1]
    turned, rest = x[..., : 2 * pairs], x[..., 2 * pairs :]
    c, s = cos[:, None], sin[:, None]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)
    else:
        a, b = turned[..., :pairs], turned[..., pairs:]
        turned = torch.cat([a * c - b * s, b * c + a * s], -1)
    return torch.cat([turned, rest], -1)


def rms(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def angles(model, length):
    position = torch.arange(length)[None]
    cos, sin = model.model.rotary_emb(torch.zeros(1, length, 1), position)
    pairs = cos.shape[-1] // 2
    return cos[0, :, :pairs].double(), sin[0, :, :pairs].double()


def run(name):
    model, _ = load(FIXTURES / name)
    config = model.config
    model = model.double()
    glm = config.model_type == "glm_moe_dsa"
    gated = config.model_type == "axk2"
    first, end = GROUPS[name]
    generator = torch.Generator().manual_seed(14)
    ids = torch.randint(0, config.vocab_size, (BATCH, LENGTH), generator=generator)
    with torch.no_grad():
        hidden = model.model(ids, output_hidden_states=True).hidden_states
    cos, sin = angles(model, LENGTH)
    heads, nope, rope_dim = config.num_attention_heads, config.qk_nope_head_dim, config.qk_rope_head_dim
    rows = torch.arange(1, LENGTH, STRIDE)
    causal = torch.arange(LENGTH)[None] <= rows[:, None]

    def latent(layer, x):
        a = layer.self_attn
        h = layer.input_layernorm(x) if gated else rms(x, layer.input_layernorm.weight, config.rms_norm_eps)
        raw = a.q_a_proj(h)
        return h, rms(raw, a.q_a_layernorm.weight, 1e-6), raw

    def target(layer, x, allowed, weight):
        a = layer.self_attn
        h, compressed, raw = latent(layer, x)
        if gated:
            both = a.q_gate_proj(torch.cat([compressed, raw], -1)).view(BATCH, LENGTH, heads, -1)
            q, gates = both.split([nope + rope_dim, config.v_head_dim], -1)
            gates = gates[:, rows].sigmoid()
        else:
            q = a.q_b_proj(compressed).view(BATCH, LENGTH, heads, nope + rope_dim)
        q = torch.cat([q[..., :nope], rope(q[..., nope:], cos, sin, True)], -1)[:, rows]
        kv = a.kv_a_proj_with_mqa(h)
        c = rms(kv[..., : config.kv_lora_rank], a.kv_a_layernorm.weight, 1e-6)
        pe = rope(kv[..., config.kv_lora_rank :].unsqueeze(2), cos, sin, True)
        up = a.kv_b_proj(c).view(BATCH, LENGTH, heads, nope + config.v_head_dim)
        k = torch.cat([up[..., :nope], pe.expand(-1, -1, heads, -1)], -1)
        scores = torch.einsum("brhd,bshd->bhrs", q, k) * a.scaling
        p = scores.masked_fill(~allowed[:, None], -math.inf).softmax(-1)
        if weight == "mass":
            return p.mean(1)
        o = a.o_proj.weight.view(-1, heads, config.v_head_dim)
        v = up[..., nope:]
        norm = torch.einsum("bshd,ohd->bhso", v, o).norm(dim=-1)[:, :, None]
        if gated:
            shares = v.pow(2) * o.pow(2).sum(0)
            passed = torch.einsum("brhd,bshd->bhrs", gates.pow(2), shares) / shares.sum(-1).transpose(1, 2)[:, :, None]
            norm = norm * passed.sqrt()
            exact = torch.einsum("brhd,bshd,ohd->bhrso", gates, v, o).norm(dim=-1)
            whole = (p * exact).sum(1)
            away = (p * norm).sum(1) / (p * norm).sum(1).sum(-1, keepdim=True) - whole / whole.sum(-1, keepdim=True)
            print("gates: this target and that of the exact norms share", 1 - away.abs().sum(-1).mean().item() / 2)
        p = (p * norm).sum(1)
        return p / p.sum(-1, keepdim=True)

    layer = model.model.layers[first]
    indexer = layer.self_attn.indexer
    parameters = dict(indexer.named_parameters())
    index_heads, dim = config.index_n_heads, config.index_head_dim

    def scores():
        h, compressed, _ = latent(layer, hidden[first])
        q = indexer.wq_b(compressed).view(BATCH, LENGTH, index_heads, dim)
        q = rope(q, cos, sin, glm)[:, rows]
        k = torch.nn.functional.layer_norm(
            indexer.wk(h), (dim,), parameters["k_norm.weight"], parameters["k_norm.bias"], 1e-6
        )
        k = rope(k.unsqueeze(2), cos, sin, glm).squeeze(2)
        w = indexer.weights_proj(h)[:, rows] * index_heads**-0.5 * dim**-0.5
        return torch.einsum("brh,brhs->brs", w, torch.einsum("brhd,bsd->brhs", q, k).relu())

    cases = []
    for stage, weight in CASES:
        found = scores()
        allowed = causal.expand(BATCH, -1, -1)
        if stage == "sparse":
            kept = found.masked_fill(~allowed, -math.inf).topk(config.index_topk, -1).indices
            allowed = torch.zeros_like(allowed).scatter(-1, kept, True) & allowed
        with torch.no_grad():
            p = torch.stack([target(model.model.layers[i], hidden[i], allowed, weight) for i in range(first, end)]).mean(0)
        logs = found.masked_fill(~allowed, -math.inf).log_softmax(-1).masked_fill(~allowed, 0)
        loss = (torch.xlogy(p, p) - p * logs).sum(-1).mean()
        gradients = torch.autograd.grad(loss, [parameters[tensor] for tensor in TENSORS])
        packed = [base64.b64encode(g.numpy().astype("<f4").tobytes()).decode() for g in gradients]
        cases.append(
            {"stage": stage, "weight": weight, "loss": loss.item(), "gradients": dict(zip(TENSORS, packed, strict=True))}
        )
        print(name, stage, weight, loss.item(), [g.norm().item() for g in gradients])
    out = {
        "made_with": {"torch": torch.__version__, "numpy": np.__version__},
        "from": first,
        "to": end,
        "input_ids": ids.tolist(),
        "query_positions": rows.tolist(),
        "cases": cases,
    }
    (FIXTURES / name / "distill.json").write_text(json.dumps(out, indent=1) + "\n")


for fixture in GROUPS:
    run(fixture)
