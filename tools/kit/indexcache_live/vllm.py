"""Worker extension of vLLM: switches DSA layers between Full and Shared, and counts what runs.

    VLLM_SERVER_DEV_MODE=1 PYTHONPATH=kit vllm serve MODEL --enforce-eager --no-enable-prefix-caching \\
        --worker-extension-cls indexcache_live.vllm.PatternExtension

POST /collective_rpc carries strings in and dicts out; every rank answers. A method never raises: under tensor parallelism an
exception in one worker ends the engine. What it cannot do it says in `error`.

The switch is a plain attribute, `skip_topk`, that each layer reads in every eager forward:
    layers.N.self_attn.mla_attn.skip_topk    0.25 to 0.28 and, later, all but CUDA and ROCm
    layers.N.self_attn.skip_topk             CUDA and ROCm since 0.29
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from .letters import Refused, check

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.self_attn(\.mla_attn)?$")
_BOOT = uuid.uuid4().hex
_STATE = "_indexcache_state"

#: Set to 1 to let vLLM 0.29 to 0.33 load a checkpoint that ships indexers for layers that its pattern makes Shared.
SKIP_UNUSED = "INDEXCACHE_SKIP_UNUSED_INDEXERS"


class _State:
    """What a worker knows of its layers; made at the first call, when the model is there."""

    def __init__(self, worker: Any) -> None:
        self.model = worker.get_model()
        self.config = worker.vllm_config
        text = self.config.model_config.hf_text_config
        self.total = int(text.num_hidden_layers)
        self.layers = find_layers(self.model, self.total)
        self.boot_letters = self.letters()
        self.calls = dict.fromkeys(self.layers, 0)
        self.hooks = [self._count(number) for number, layer in self.layers.items() if layer.indexer is not None]

    def _count(self, number: int) -> Any:
        indexer = self.layers[number].indexer

        def called(*_: Any) -> None:
            self.calls[number] += 1

        # The query projection is a module on every path; the indexer itself is not always called as one.
        return getattr(indexer, "wq_b", indexer).register_forward_pre_hook(called)

    def letters(self) -> str:
        return "".join(letter(self.layers.get(number)) for number in range(self.total))

    def present(self) -> dict[int, bool]:
        return {number: layer.indexer is not None for number, layer in self.layers.items()}


def find_layers(model: Any, total: int) -> dict[int, Any]:
    """For each layer number of this rank the module that holds `skip_topk`; draft (MTP) layers are left out."""
    found: dict[int, Any] = {}
    for name, module in model.named_modules():
        match = _LAYER.search(name)
        if match is None or not hasattr(module, "skip_topk") or not hasattr(module, "indexer"):
            continue
        number = int(match.group(1))
        # Where both modules have the attribute, forward() of the inner one reads it.
        if number < total and (number not in found or match.group(2) is not None):
            found[number] = module
    return dict(sorted(found.items()))


def letter(layer: Any) -> str:
    if layer is None:
        return "."
    if layer.indexer is None:
        return "-"
    return "S" if layer.skip_topk else "F"


def obstacles(config: Any) -> list[str]:
    """Settings of the server under which a switched pattern would not be what is measured."""
    found: list[str] = []
    if not config.model_config.enforce_eager:
        found.append("graphs are on: start the server with --enforce-eager, captured graphs never look at the switch")
    if config.cache_config.enable_prefix_caching:
        found.append("prefix caching is on: start the server with --no-enable-prefix-caching")
    parallel = config.parallel_config
    if parallel.data_parallel_size > 1:
        found.append("data parallelism is on: only its first engine would answer; start a server for each replica")
    for name in ("prefill_context_parallel_size", "decode_context_parallel_size"):
        if getattr(parallel, name, 1) > 1:
            found.append(f"{name} is {getattr(parallel, name)}: context parallelism has not been followed")
    if getattr(config, "speculative_config", None) is not None:
        found.append("speculative decoding is on")
    if getattr(config, "kv_transfer_config", None) is not None:
        found.append("a KV connector is on")
    if _uses_hisparse(config):
        found.append("HiSparse is on: its caches hang on the layers that were Shared at the start")
    return found


def _uses_hisparse(config: Any) -> bool:
    value = os.environ.get("VLLM_ENABLE_HISPARSE", "")
    attention = getattr(config, "attention_config", None)
    return value not in ("", "0") or bool(getattr(attention, "enable_hisparse", False))


def answering(method: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A method that answers whatever happens."""

    @functools.wraps(method)
    def safe(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        answer: dict[str, Any] = {"boot_id": _BOOT, "rank": _rank(self)}
        try:
            state = self.__dict__.get(_STATE)
            if state is None:
                state = self.__dict__[_STATE] = _State(self)
            answer.update(method(self, state, *args, **kwargs))
            answer["letters"] = state.letters()
        except Refused as refusal:
            answer["error"] = str(refusal)
        except Exception as error:  # noqa: BLE001
            answer["error"] = f"{type(error).__name__}: {error}"
        return answer

    return safe


def _rank(worker: Any) -> int:
    return int(getattr(worker, "rank", 0) or 0)


class PatternExtension:
    """Mixed into vLLM's worker; no name here may be one of the worker's."""

    @answering
    def indexcache_describe(self, state: _State) -> dict[str, Any]:
        config = state.config
        text = config.model_config.hf_text_config
        parallel = config.parallel_config
        return {
            "engine": "vllm",
            "engine_version": _version(),
            "kit": "1",
            "boot_letters": state.boot_letters,
            "num_hidden_layers": state.total,
            "first_layer": min(state.layers, default=None),
            "last_layer": max(state.layers, default=None),
            "index_topk": getattr(text, "index_topk", None),
            "vocab_size": getattr(text, "vocab_size", None),
            "max_model_len": config.model_config.max_model_len,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "kv_cache_dtype": str(config.cache_config.cache_dtype),
            "head_dtype": _head_dtype(state),
            "tensor_parallel_size": parallel.tensor_parallel_size,
            "pipeline_parallel_size": parallel.pipeline_parallel_size,
            "data_parallel_size": parallel.data_parallel_size,
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "obstacles": obstacles(config),
        }

    @answering
    def indexcache_set(self, state: _State, letters: str) -> dict[str, Any]:
        blocked = obstacles(state.config)
        if blocked:
            raise Refused("; ".join(blocked))
        check(letters, state.present(), state.total)
        for number, layer in state.layers.items():
            if layer.indexer is not None:
                layer.skip_topk = letters[number] == "S"
        return {}

    @answering
    def indexcache_count(self, state: _State, reset: str = "") -> dict[str, Any]:
        calls = [state.calls.get(number) for number in range(state.total)]
        if reset in ("1", "true", "yes"):
            state.calls.update(dict.fromkeys(state.calls, 0))
        return {"calls": calls}

    @answering
    def indexcache_head(self, state: _State, dtype: str) -> dict[str, Any]:
        """`float32`: logits from a float32 product, for releases that ignore `head_dtype` when they generate; `model`: as before."""
        processor = state.model.logits_processor
        if dtype == "model":
            processor.__dict__.pop("_get_logits", None)
        elif dtype != "float32":
            raise Refused(f"head {dtype!r} is neither float32 nor model")
        elif _head_dtype(state) != "float32":
            processor.__dict__["_get_logits"] = _float32_logits(processor)
        return {"head_dtype": _head_dtype(state)}


def _float32_logits(processor: Any) -> Callable[..., Any]:
    linear = importlib.import_module("torch").nn.functional.linear

    def logits(hidden_states: Any, lm_head: Any, embedding_bias: Any = None) -> Any:
        bias = None if embedding_bias is None else embedding_bias.float()
        found = processor._gather_logits(linear(hidden_states.float(), lm_head.weight.float(), bias))
        return None if found is None else found[..., : processor.org_vocab_size]

    return logits


def _head_dtype(state: _State) -> str:
    processor = getattr(state.model, "logits_processor", None)
    if processor is not None and "_get_logits" in processor.__dict__:
        return "float32"
    # Releases before 0.26 read the field and warn that generation ignores it.
    known = getattr(state.config.model_config, "head_dtype", None)
    obeyed = processor is not None and hasattr(processor, "head_dtype")
    return str(known).removeprefix("torch.") if known is not None and obeyed else "model"


def _version() -> str | None:
    try:
        return str(importlib.import_module("vllm").__version__)
    except Exception:  # noqa: BLE001
        return None


_SPARSE_MODELS = ("vllm.models.deepseek_v32.nvidia.model", "vllm.models.deepseek_v32.amd.model")


def skip_unused_indexers(modules: Iterable[str] = _SPARSE_MODELS) -> list[str]:
    """Mends loading in vLLM 0.29 to 0.33: tensors of indexers that the model does not have are left out.

    Those releases stop with KeyError where a pattern makes a layer Shared whose indexer the checkpoint ships. Returns the
    names of the classes that were mended.
    """
    mended: list[str] = []
    for name in modules:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == name and "load_weights" in vars(kind):
                _wrap_loading(kind)
                mended.append(f"{name}.{kind.__name__}")
    return mended


_INDEXER = re.compile(r"^(.*\.indexer)\.")


def _wrap_loading(kind: Any) -> None:
    load = kind.load_weights
    if getattr(load, "indexcache", False):
        return

    @functools.wraps(load)
    def load_weights(self: Any, weights: Iterable[tuple[str, Any]], *args: Any, **kwargs: Any) -> Any:
        prefixes = {match.group(1) for name, _ in self.named_parameters() if (match := _INDEXER.match(name))}

        def used() -> Iterable[tuple[str, Any]]:
            for name, tensor in weights:
                match = _INDEXER.match(name)
                if match is None or any(_same_module(match.group(1), prefix) for prefix in prefixes):
                    yield name, tensor

        return load(self, used(), *args, **kwargs)

    load_weights.indexcache = True  # type: ignore[attr-defined]
    kind.load_weights = load_weights


def _same_module(name: str, prefix: str) -> bool:
    """Checkpoint names may carry more in front than the module's own, or less."""
    return name == prefix or name.endswith("." + prefix) or prefix.endswith("." + name)


if os.environ.get(SKIP_UNUSED) == "1":
    skip_unused_indexers()
