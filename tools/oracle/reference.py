"""Hugging Face transformers as the reference: loading, F/S patterns at run time, and taps on what a forward computes.

Everything runs in fp32 on CPU with eager attention and eager experts. Nothing here re-implements the model, except for
`Reuse`, which gives deepseek_v32 and axk2 the sharing that transformers has for glm_moe_dsa only.
"""

import contextlib
import math

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM

FULL, SHARED = "full", "shared"


def load(folder, attention="eager", **config_overrides):
    """Loads a checkpoint folder in fp32; gives (model, loading_info)."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation=attention,
        experts_implementation="eager",
        output_loading_info=True,
        **config_overrides,
    )
    assert model.config._attn_implementation == attention
    assert model.config._experts_implementation == "eager"
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32, name
    return model.eval(), info


class Reuse(nn.Module):
    """Stands for the indexer of a Shared layer of deepseek_v32 or axk2: answers with the latest Full layer's indices."""

    def __init__(self, latest):
        super().__init__()
        self.latest = latest

    def forward(self, *args, **kwargs):
        return self.latest["indices"]


class Patterns:
    """Sets the F/S pattern of a loaded model at run time, by stashing the indexers of Shared layers."""

    def __init__(self, model):
        self.model = model
        self.attentions = [layer.self_attn for layer in model.model.layers]
        self.stash = [attention.indexer for attention in self.attentions]
        self.patched = model.config.model_type in ("deepseek_v32", "axk2")
        self.latest = {}
        if self.patched:
            for indexer in self.stash:
                indexer.register_forward_hook(lambda _m, _a, out: self.latest.update(indices=out))
        self.native = "".join("S" if indexer is None else "F" for indexer in self.stash)
        self.current = self.native

    def set(self, pattern):
        assert len(pattern) == len(self.attentions) and pattern[0] == "F", pattern
        for letter, attention, indexer in zip(pattern, self.attentions, self.stash):
            assert letter == "S" or indexer is not None, f"{pattern}: no indexer to restore"
            if letter == "F":
                attention.indexer = indexer
            else:
                attention.indexer = Reuse(self.latest) if self.patched else None
        self.latest.clear()
        self.current = pattern


@contextlib.contextmanager
def tied_to_lowest_index():
    """Makes every top-k break ties towards the lowest index, as ONNX Runtime's TopK does; torch leaves it open."""
    original = torch.Tensor.topk

    def topk(tensor, k, dim=-1, **_):
        if dim == -1 and tensor.shape[-1] >= 256:
            # A full stable sort of long rows is slow: take all above the k-th value, then the first ones equal to it.
            bound = original(tensor, k).values.amin(-1, keepdim=True)
            above, equal = tensor > bound, tensor == bound
            room = k - above.sum(-1, keepdim=True)
            chosen = above | (equal & (equal.cumsum(-1) <= room))
            indices = chosen.nonzero()[:, -1].view(*tensor.shape[:-1], k)
            values, order = torch.sort(tensor.gather(-1, indices), dim=-1, descending=True, stable=True)
            return torch.return_types.topk((values, indices.gather(-1, order)))
        values, indices = torch.sort(tensor, dim=dim, descending=True, stable=True)
        return torch.return_types.topk((values.narrow(dim, 0, k), indices.narrow(dim, 0, k)))

    torch.Tensor.topk = topk
    try:
        yield
    finally:
        torch.Tensor.topk = original


class Taps:
    """Records one forward call: layer boundaries, indexer scores and indices, latents, attention and MLP outputs."""

    def __init__(self, model):
        self.model = model
        self.handles = []
        self.layers = [{} for _ in model.model.layers]
        self.boundaries = [None] * (len(self.layers) + 1)

    def __enter__(self):
        self.inside = None
        self.original = torch.Tensor.topk
        taps = self

        def topk(tensor, *args, **kwargs):
            if taps.inside is not None:
                taps.layers[taps.inside]["index_scores"] = tensor.detach().clone()
            return taps.original(tensor, *args, **kwargs)

        torch.Tensor.topk = topk
        for i, layer in enumerate(self.model.model.layers):
            self._watch(i, layer)
        return self

    def _watch(self, i, layer):
        record, attention = self.layers[i], layer.self_attn

        def keep(name):
            def hook(_m, _a, out):
                record[name] = (out[0] if isinstance(out, tuple) else out).detach().clone()

            return hook

        def enter(_m, _a):
            self.inside = i

        def leave(_m, _a, out):
            self.inside = None
            record["indices"] = out.detach().clone()

        def layer_in(_m, args, kwargs):
            self.boundaries[i] = (args[0] if args else kwargs["hidden_states"]).detach().clone()

        def layer_out(_m, _a, out):
            self.boundaries[i + 1] = (out[0] if isinstance(out, tuple) else out).detach().clone()

        add = self.handles.append
        add(layer.register_forward_pre_hook(layer_in, with_kwargs=True))
        add(layer.register_forward_hook(layer_out))
        add(attention.register_forward_hook(keep("attention")))
        add(attention.q_a_layernorm.register_forward_hook(keep("q_latent")))
        add(attention.kv_a_layernorm.register_forward_hook(keep("kv_latent")))
        add(layer.mlp.register_forward_hook(keep("mlp")))
        if hasattr(layer.mlp, "experts"):
            def experts_in(_m, args):
                record["experts"], record["expert_weights"] = args[1].detach().clone(), args[2].detach().clone()

            add(layer.mlp.experts.register_forward_pre_hook(experts_in))
        if attention.indexer is not None and not isinstance(attention.indexer, Reuse):
            add(attention.indexer.register_forward_pre_hook(enter))
            add(attention.indexer.register_forward_hook(leave))

    def __exit__(self, *_):
        torch.Tensor.topk = self.original
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def forward(model, ids, past=None, use_cache=False, **kwargs):
    """Runs token ids (a list, or a batch as a tensor); gives HF's output object."""
    batch = ids if torch.is_tensor(ids) else torch.tensor([ids])
    return model(batch, past_key_values=past, use_cache=use_cache, **kwargs)


def mean_nll(logits, ids):
    """Mean over positions 1..T-1 of -log p(token | tokens before it), log-softmax and sum in float64."""
    log_p = torch.log_softmax(logits[:-1].double(), dim=-1)
    targets = torch.as_tensor(ids[1:]).unsqueeze(-1)
    return -log_p.gather(-1, targets).mean().item()


@torch.no_grad()
def greedy(model, prompt, count):
    """Greedy continuation with HF's cache; gives the tokens and, for each, the gap of its logit to the second best."""
    tokens, gaps, feed, past = [], [], list(prompt), None
    while len(tokens) < count:
        out = forward(model, feed, past, use_cache=True, logits_to_keep=1)
        past = out.past_key_values
        best = out.logits[0, -1].topk(2)
        tokens.append(best.indices[0].item())
        gaps.append((best.values[0] - best.values[1]).item())
        feed = [tokens[-1]]
    return tokens, gaps


def short(value):
    """Floats to 7 significant digits, tensors and arrays to lists, all the way down."""
    if torch.is_tensor(value):
        return short(value.tolist())
    if isinstance(value, np.ndarray):
        return short(value.tolist())
    if isinstance(value, float):
        assert math.isfinite(value)
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {key: short(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [short(item) for item in value]
    return value


def dump(value, indent=""):
    """JSON with one line for each list of scalars."""
    import json

    deeper = indent + " "
    if isinstance(value, dict) and value:
        body = ",\n".join(f"{deeper}{json.dumps(key)}: {dump(item, deeper)}" for key, item in value.items())
        return f"{{\n{body}\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        body = ",\n".join(deeper + dump(item, deeper) for item in value)
        return f"[\n{body}\n{indent}]"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)
