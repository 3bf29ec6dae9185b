"""The demo model for training: `glm_moe_dsa` with an own indexer in every layer, and its two losses in one pass.

It computes what `GlmMoeDsaForCausalLM` computes, arranged for speed on windows of fixed length: static shapes (the whole
training step is captured as one CUDA graph), all experts as one wide MLP whose inner units are weighted by the router,
and an indexer loss on a sample of the query rows. `export` writes the names and shapes that transformers reads.
"""

import json
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

try:
    import triton
    import triton.language as tl
except ImportError:  # CPU builds; the fallback below is used there anyway
    triton = None


@dataclass
class Geometry:
    vocab_size: int = 2048
    hidden_size: int = 192
    intermediate_size: int = 512
    moe_intermediate_size: int = 96
    num_hidden_layers: int = 12
    num_attention_heads: int = 4
    q_lora_rank: int = 96
    kv_lora_rank: int = 64
    qk_nope_head_dim: int = 32
    qk_rope_head_dim: int = 16
    v_head_dim: int = 48
    n_routed_experts: int = 4
    num_experts_per_tok: int = 2
    first_k_dense_replace: int = 2
    routed_scaling_factor: float = 1.5
    index_n_heads: int = 4
    index_head_dim: int = 32
    index_topk: int = 128
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    window: int = 1024


LATENT_EPS = 1e-6  # of q_a_layernorm, kv_a_layernorm and the indexer's k_norm, whatever rms_norm_eps says


if triton is not None:

    @triton.jit
    def _select(scores, kept, columns: tl.constexpr, k: tl.constexpr):
        """Marks the k largest of one causal row, exactly: bisection over floats read as order-preserving integers."""
        row = tl.program_id(0)
        column = tl.arange(0, columns)
        at = row.to(tl.int64) * columns + column
        visible = column <= row % columns
        bits = tl.load(scores + at).to(tl.int32, bitcast=True)
        keys = tl.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).to(tl.int64)
        keys = tl.where(visible, keys, -0x80000000)
        low = tl.min(keys, 0)
        high = tl.max(keys, 0) + 1
        for _ in range(33):
            middle = (low + high) >> 1
            enough = tl.sum((keys >= middle).to(tl.int32), 0) >= k
            low = tl.where(enough, middle, low)
            high = tl.where(enough, high, middle)
        above = keys > low
        tied = keys == low
        left = k - tl.sum(above.to(tl.int32), 0)
        keep = above | (tied & (tl.cumsum(tied.to(tl.int32), 0) <= left))
        tl.store(kept + at, (keep & visible).to(tl.int8))


def select(scores: torch.Tensor, causal: torch.Tensor, k: int) -> torch.Tensor:
    """Which keys [B, S, S] the k best scores of each row keep; of tied scores the first ones, never one of the future."""
    kept = torch.empty(scores.shape, device=scores.device, dtype=torch.int8)
    if triton is not None and scores.is_cuda:
        _select[(scores.shape[0] * scores.shape[1],)](scores.contiguous(), kept, columns=scores.shape[-1], k=k)
        return kept.bool()
    order = scores.masked_fill(~causal, float("-inf")).sort(dim=-1, descending=True, stable=True).indices
    return kept.zero_().scatter_(-1, order[..., :k], 1).bool() & causal


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Interleaved RoPE; the result holds all first members, then all second members of the pairs."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def matrix(rows: int, columns: int, std: float) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) * std)


class Indexer(nn.Module):
    def __init__(self, g: Geometry, std: float):
        super().__init__()
        self.g = g
        self.wq_b = matrix(g.index_n_heads * g.index_head_dim, g.q_lora_rank, std)
        self.wk = matrix(g.index_head_dim, g.hidden_size, std)
        self.k_norm_weight = nn.Parameter(torch.ones(g.index_head_dim))
        self.k_norm_bias = nn.Parameter(torch.zeros(g.index_head_dim))
        self.weights_proj = matrix(g.index_n_heads, g.hidden_size, std)

    def keys(self, hidden, cos, sin):
        g = self.g
        k = F.linear(hidden, self.wk).float()
        k = F.layer_norm(k, (g.index_head_dim,), self.k_norm_weight, self.k_norm_bias, LATENT_EPS)
        r = g.qk_rope_head_dim
        return torch.cat([rotate(k[..., :r], cos, sin), k[..., r:]], -1)

    def queries(self, latent, cos, sin):
        g = self.g
        q = F.linear(latent, self.wq_b).view(*latent.shape[:-1], g.index_n_heads, g.index_head_dim).float()
        r = g.qk_rope_head_dim
        return torch.cat([rotate(q[..., :r], cos.unsqueeze(-2), sin.unsqueeze(-2)), q[..., r:]], -1)

    def scores(self, hidden, queries, keys):
        """fp32 index scores [B, R, T] of the R rows in `hidden` and `queries`."""
        g = self.g
        with torch.autocast(hidden.device.type, enabled=False):
            weights = F.linear(hidden.float(), self.weights_proj) * g.index_n_heads**-0.5
            total = None
            for head in range(g.index_n_heads):
                s = F.relu(queries[..., head, :] @ keys.transpose(-1, -2)) * (
                    weights[..., head : head + 1] * g.index_head_dim**-0.5
                )
                total = s if total is None else total + s
        return total


class Layer(nn.Module):
    def __init__(self, g: Geometry, index: int, std: float):
        super().__init__()
        self.g = g
        out_std = std / (2 * g.num_hidden_layers) ** 0.5
        d, heads = g.hidden_size, g.num_attention_heads
        self.input_layernorm = nn.Parameter(torch.ones(d))
        self.post_attention_layernorm = nn.Parameter(torch.ones(d))
        self.q_a_proj = matrix(g.q_lora_rank, d, std)
        self.q_a_layernorm = nn.Parameter(torch.ones(g.q_lora_rank))
        self.q_b_proj = matrix(heads * (g.qk_nope_head_dim + g.qk_rope_head_dim), g.q_lora_rank, std)
        self.kv_a_proj = matrix(g.kv_lora_rank + g.qk_rope_head_dim, d, std)
        self.kv_a_layernorm = nn.Parameter(torch.ones(g.kv_lora_rank))
        self.kv_b_proj = matrix(heads * (g.qk_nope_head_dim + g.v_head_dim), g.kv_lora_rank, std)
        self.o_proj = matrix(d, heads * g.v_head_dim, out_std)
        self.indexer = Indexer(g, std)
        self.sparse_mlp = index >= g.first_k_dense_replace
        # Routed experts and, last, the shared one: a single MLP whose inner units are weighted by the router.
        inner = g.moe_intermediate_size * (g.n_routed_experts + 1) if self.sparse_mlp else g.intermediate_size
        self.gate_proj = matrix(inner, d, std)
        self.up_proj = matrix(inner, d, std)
        self.down_proj = matrix(d, inner, out_std)
        if self.sparse_mlp:
            self.router = matrix(g.n_routed_experts, d, std)
            self.register_buffer("router_bias", torch.zeros(g.n_routed_experts))

    def attention(self, x, cos, sin, causal, rows, sparse):
        """Attention output, and the indexer's KL on `rows` (None without rows)."""
        g = self.g
        b, s, _ = x.shape
        heads, nope, rope = g.num_attention_heads, g.qk_nope_head_dim, g.qk_rope_head_dim
        scale = (nope + rope) ** -0.5
        h = F.rms_norm(x, (g.hidden_size,), self.input_layernorm, g.rms_norm_eps)
        latent = F.rms_norm(F.linear(h, self.q_a_proj), (g.q_lora_rank,), self.q_a_layernorm, LATENT_EPS)
        q = F.linear(latent, self.q_b_proj).view(b, s, heads, nope + rope)
        q = torch.cat([q[..., :nope], rotate(q[..., nope:], cos.unsqueeze(1), sin.unsqueeze(1))], -1).transpose(1, 2)
        ckv = F.linear(h, self.kv_a_proj)
        c = F.rms_norm(ckv[..., : g.kv_lora_rank], (g.kv_lora_rank,), self.kv_a_layernorm, LATENT_EPS)
        k_rope = rotate(ckv[..., g.kv_lora_rank :], cos, sin).unsqueeze(2).expand(b, s, heads, rope)
        kv = F.linear(c, self.kv_b_proj).view(b, s, heads, nope + g.v_head_dim)
        k = torch.cat([kv[..., :nope], k_rope.to(kv.dtype)], -1).transpose(1, 2)
        v = kv[..., nope:].transpose(1, 2)
        q, k = q.to(v.dtype), k.to(v.dtype)

        frozen, frozen_latent = h.detach(), latent.detach()
        index_keys = self.indexer.keys(frozen, cos, sin)
        keep = None
        if sparse and s > g.index_topk:
            with torch.no_grad():
                queries = self.indexer.queries(frozen_latent, cos, sin)
                scores = self.indexer.scores(frozen, queries, index_keys.detach())
                keep = select(scores, causal, g.index_topk)
                bias = torch.zeros(b, 1, s, s, device=x.device, dtype=v.dtype)
                bias = bias.masked_fill(~keep.unsqueeze(1), float("-inf")).expand(b, heads, s, s)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        out = F.linear(out.transpose(1, 2).reshape(b, s, heads * g.v_head_dim), self.o_proj)
        if rows is None:
            return out, None

        allowed = causal[rows].unsqueeze(0) if keep is None else keep[:, rows]
        with torch.no_grad():
            target = (q[:, :, rows] @ k.transpose(-1, -2)).float() * scale
            target = target.masked_fill(~allowed.unsqueeze(1), -1e30).softmax(-1).mean(1)
        queries = self.indexer.queries(frozen_latent[:, rows], cos[rows], sin[rows])
        logq = self.indexer.scores(frozen[:, rows], queries, index_keys).masked_fill(~allowed, -1e30).log_softmax(-1)
        kl = (torch.xlogy(target, target) - target * logq).sum(-1).mean()
        return out, kl

    def mlp(self, x):
        """MLP output, and the routed experts' load (None in dense layers)."""
        g = self.g
        h = F.rms_norm(x, (g.hidden_size,), self.post_attention_layernorm, g.rms_norm_eps)
        inner = F.silu(F.linear(h, self.gate_proj)) * F.linear(h, self.up_proj)
        load = None
        if self.sparse_mlp:
            with torch.autocast(x.device.type, enabled=False):
                p = torch.sigmoid(F.linear(h.float(), self.router))
                chosen = (p.detach() + self.router_bias).topk(g.num_experts_per_tok, dim=-1).indices
                mask = torch.zeros_like(p).scatter_(-1, chosen, 1.0)
                weights = p * mask
                weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * g.routed_scaling_factor
                weights = torch.cat([weights, torch.ones_like(weights[..., :1])], -1)
                load = mask.mean((0, 1))
            shape = (*inner.shape[:-1], g.n_routed_experts + 1, g.moe_intermediate_size)
            inner = (inner.view(shape) * weights.unsqueeze(-1).to(inner.dtype)).view(inner.shape)
        return F.linear(inner, self.down_proj), load


class DemoModel(nn.Module):
    def __init__(self, g: Geometry, std: float = 0.03):
        super().__init__()
        self.g = g
        self.embed_tokens = matrix(g.vocab_size, g.hidden_size, std)
        self.layers = nn.ModuleList(Layer(g, i, std) for i in range(g.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(g.hidden_size))
        self.lm_head = matrix(g.vocab_size, g.hidden_size, std)
        r = g.qk_rope_head_dim
        angles = torch.outer(torch.arange(g.window).float(), g.rope_theta ** (-torch.arange(0, r, 2).float() / r))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        causal = torch.ones(g.window, g.window, dtype=torch.bool).tril()
        self.register_buffer("causal", causal, persistent=False)

    def forward(self, ids, sparse: bool, rows=None):
        """Logits, per-layer KL (with `rows`), per-layer expert loads."""
        s = ids.shape[1]
        cos, sin, causal = self.cos[:s], self.sin[:s], self.causal[:s, :s]
        x = F.embedding(ids, self.embed_tokens)
        kls, loads = [], []
        for layer in self.layers:
            out, kl = layer.attention(x, cos, sin, causal, rows, sparse)
            x = x + out
            out, load = layer.mlp(x)
            x = x + out
            kls.append(kl)
            loads.append(load)
        x = F.rms_norm(x, (self.g.hidden_size,), self.norm, self.g.rms_norm_eps)
        return F.linear(x, self.lm_head), kls, loads

    @torch.no_grad()
    def balance(self, loads, rate: float = 1e-3) -> None:
        """Moves the selection bias of over- and underloaded experts by a fixed step."""
        for layer, load in zip(self.layers, loads):
            if load is not None:
                layer.router_bias.add_(torch.sign(load.mean() - load), alpha=rate)

    def views(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers, or parts of them, under their published names."""
        g, m = self.g, {}
        m["model.embed_tokens.weight"], m["model.norm.weight"], m["lm_head.weight"] = (
            self.embed_tokens,
            self.norm,
            self.lm_head,
        )
        for i, layer in enumerate(self.layers):
            p = f"model.layers.{i}."
            for norm in ("input_layernorm", "post_attention_layernorm"):
                m[f"{p}{norm}.weight"] = getattr(layer, norm)
            a = f"{p}self_attn."
            for name in ("q_a_proj", "q_a_layernorm", "q_b_proj", "kv_a_layernorm", "kv_b_proj", "o_proj"):
                m[f"{a}{name}.weight"] = getattr(layer, name)
            m[f"{a}kv_a_proj_with_mqa.weight"] = layer.kv_a_proj
            m[f"{a}indexer.wq_b.weight"] = layer.indexer.wq_b
            m[f"{a}indexer.wk.weight"] = layer.indexer.wk
            m[f"{a}indexer.k_norm.weight"] = layer.indexer.k_norm_weight
            m[f"{a}indexer.k_norm.bias"] = layer.indexer.k_norm_bias
            m[f"{a}indexer.weights_proj.weight"] = layer.indexer.weights_proj
            if not layer.sparse_mlp:
                for name in ("gate_proj", "up_proj", "down_proj"):
                    m[f"{p}mlp.{name}.weight"] = getattr(layer, name)
                continue
            m[f"{p}mlp.gate.weight"] = layer.router
            m[f"{p}mlp.gate.e_score_correction_bias"] = layer.router_bias
            inner = g.moe_intermediate_size
            for e in range(g.n_routed_experts + 1):
                name = f"{p}mlp.experts.{e}." if e < g.n_routed_experts else f"{p}mlp.shared_experts."
                part = slice(e * inner, (e + 1) * inner)
                m[f"{name}gate_proj.weight"] = layer.gate_proj[part]
                m[f"{name}up_proj.weight"] = layer.up_proj[part]
                m[f"{name}down_proj.weight"] = layer.down_proj[:, part]
        return m

    def tensors(self) -> dict[str, torch.Tensor]:
        """The checkpoint's tensors under their published names: matrices in bf16, vectors in fp32."""
        return {
            name: t.detach().to(torch.bfloat16 if t.ndim == 2 else torch.float32).contiguous().cpu().clone()
            for name, t in self.views().items()
        }


def config(g: Geometry, bos: int = 0, eos: int = 1, pad: int = 2) -> dict:
    """The config.json of the geometry, with the fields that serving engines read beside those of transformers."""
    layers = g.num_hidden_layers
    fields = asdict(g)
    theta, window = fields.pop("rope_theta"), fields.pop("window")
    return {
        "architectures": ["GlmMoeDsaForCausalLM"],
        "model_type": "glm_moe_dsa",
        "dtype": "bfloat16",
        **fields,
        "num_key_value_heads": g.num_attention_heads,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "mlp_layer_types": ["dense"] * g.first_k_dense_replace + ["sparse"] * (layers - g.first_k_dense_replace),
        "indexer_types": ["full"] * layers,
        "indexer_rope_interleave": True,
        "rope_interleave": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "max_position_embeddings": window,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "initializer_range": 0.03,
        "use_cache": True,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
    }


def restore(folder) -> DemoModel:
    """The model of a folder that `export` wrote, in fp32. Any other field or tensor is refused."""
    from safetensors.torch import load_file

    written = json.loads((folder / "config.json").read_text())
    fields = {name: written[name] for name in asdict(Geometry()) if name in written}
    rope = written["rope_parameters"]["rope_theta"]
    g = Geometry(**fields, rope_theta=rope, window=written["max_position_embeddings"])
    if config(g) != written:
        raise SystemExit(f"{folder}/config.json is not one of train-demo's geometry")
    model, tensors = DemoModel(g), load_file(str(folder / "model.safetensors"))
    views = model.views()
    if views.keys() != tensors.keys():
        raise SystemExit(f"{folder}: tensors missing or unknown: {sorted(views.keys() ^ tensors.keys())[:5]}")
    with torch.no_grad():
        for name, view in views.items():
            if view.shape != tensors[name].shape:
                raise SystemExit(f"{folder}: {name} is {list(tensors[name].shape)}, not {list(view.shape)}")
            view.copy_(tensors[name])
    return model.requires_grad_(False)


def export(model: DemoModel, folder) -> None:
    """Writes model.safetensors, config.json and generation_config.json."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.tensors(), str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config(model.g), indent=2) + "\n")
    generation = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
