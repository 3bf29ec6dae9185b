"""The parts of an engine that the kit touches, as its releases have them; standard library only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class Projection:
    def __init__(self) -> None:
        self.hooks: list[Any] = []

    def register_forward_pre_hook(self, hook: Any) -> Any:
        self.hooks.append(hook)
        return SimpleNamespace(remove=lambda: self.hooks.remove(hook))

    def __call__(self) -> None:
        for hook in self.hooks:
            hook(self, ())


class Indexer:
    def __init__(self) -> None:
        self.wq_b = Projection()


class Model:
    """`inner`: the switch lies in `mla_attn` (the generic path), as before 0.29 and off CUDA.
    `every`: Shared layers have an indexer as well, as in SGLang 0.5.17."""

    def __init__(self, letters: str, first: int = 0, inner: bool = False, draft: bool = True, every: bool = False) -> None:
        self.layers: dict[str, Any] = {}
        for number, letter in enumerate(letters, first):
            indexer = Indexer() if every or letter == "F" else None
            switch = SimpleNamespace(indexer=indexer, skip_topk=letter != "F", next_skip_topk=False)
            at = f"model.layers.{number}.self_attn"
            if inner:
                self.layers[at] = SimpleNamespace(indexer=indexer)
                self.layers[f"{at}.mla_attn"] = switch
            else:
                self.layers[at] = switch
        if draft:
            self.layers["model.layers.99.self_attn"] = SimpleNamespace(indexer=Indexer(), skip_topk=False)
        self.logits_processor = SimpleNamespace(org_vocab_size=10)
        self.config = SimpleNamespace(num_hidden_layers=len(letters), index_topk=128, vocab_size=10, indexer_types=None)

    def named_modules(self) -> Any:
        return self.layers.items()

    def forward(self) -> None:
        for layer in self.layers.values():
            if getattr(layer, "skip_topk", True) is False and layer.indexer is not None:
                layer.indexer.wq_b()


def vllm_config(layers: int, **changes: Any) -> Any:
    text = SimpleNamespace(num_hidden_layers=layers, index_topk=128, vocab_size=10)
    config = SimpleNamespace(
        model_config=SimpleNamespace(
            enforce_eager=True, hf_text_config=text, dtype="torch.bfloat16", max_model_len=8192, head_dtype=None
        ),
        cache_config=SimpleNamespace(enable_prefix_caching=False, cache_dtype="auto"),
        parallel_config=SimpleNamespace(tensor_parallel_size=1, pipeline_parallel_size=1, data_parallel_size=1),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=2048),
        speculative_config=None,
        kv_transfer_config=None,
    )
    for path, value in changes.items():
        target, _, name = path.rpartition("__")
        setattr(getattr(config, target) if target else config, name, value)
    return config


def sglang_scheduler(model: Model, **changes: Any) -> Any:
    arguments = SimpleNamespace(
        disable_decode_cuda_graph=True,
        disable_prefill_cuda_graph=True,
        disable_radix_cache=True,
        dp_size=1,
        tp_size=1,
        pp_size=1,
        kv_cache_dtype="auto",
        enable_fp32_lm_head=True,
        enable_two_batch_overlap=False,
        speculative_algorithm=None,
    )
    for name, value in changes.items():
        setattr(arguments, name, value)
    runner = SimpleNamespace(model=model, server_args=arguments, tp_rank=0)
    return SimpleNamespace(tp_worker=SimpleNamespace(model_runner=runner))
