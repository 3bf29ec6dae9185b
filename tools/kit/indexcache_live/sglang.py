"""General plugin of SGLang: switches DSA layers between Full and Shared, and shows the pattern in `/server_info`.

    SGLANG_PLUGINS=indexcache PYTHONPATH=kit python -m sglang.launch_server --model-path MODEL \\
        --disable-decode-cuda-graph --disable-prefill-cuda-graph --disable-radix-cache

SGLang finds the plugin by the `.dist-info` folder beside this package. `/set_internal_state` takes numbers only and reaches
every scheduler in the order of requests, so a pattern travels as words of 32 layers: `indexcache_shared_0`, ... A scheduler
that cannot switch answers false and keeps the reason in its state.
"""

from __future__ import annotations

import copy
import importlib.util
import re
import uuid
from collections.abc import Callable
from typing import Any

from .letters import Refused, check, from_words

_WORD = re.compile(r"^indexcache_shared_(\d{1,4})$")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.self_attn$")
_BOOT = uuid.uuid4().hex
_COMPONENT = "sglang.srt.managers.scheduler_components.internal_state"
_STATES: dict[int, "_State"] = {}


class _State:
    def __init__(self, scheduler: Any) -> None:
        runner = scheduler.tp_worker.model_runner
        self.model = runner.model
        self.config = self.model.config
        self.arguments = runner.server_args
        self.total = int(self.config.num_hidden_layers)
        self.layers = find_layers(self.model, self.total)
        # 0.5.17 builds an indexer for Shared layers as well; the checkpoint may have no weights for it.
        self.without_indexer = {
            number for number, layer in self.layers.items() if getattr(layer, "indexer", None) is None or layer.skip_topk
        }
        self.rank = int(getattr(runner, "tp_rank", 0) or 0)
        self.boot_letters = self.letters()
        self.calls = dict.fromkeys(self.layers, 0)
        self.error: str | None = None
        for number, attention in self.layers.items():
            indexer = getattr(attention, "indexer", None)
            if indexer is not None:
                getattr(indexer, "wq_b", indexer).register_forward_pre_hook(self._counter(number))

    def _counter(self, number: int) -> Callable[..., None]:
        def called(*_: Any) -> None:
            self.calls[number] += 1

        return called

    def letters(self) -> str:
        return "".join(self._letter(number) for number in range(self.total))

    def _letter(self, number: int) -> str:
        layer = self.layers.get(number)
        if layer is None:
            return "."
        if number in self.without_indexer:
            return "-"
        return "S" if layer.skip_topk else "F"

    def switch(self, wanted: str) -> None:
        blocked = obstacles(self.arguments)
        if blocked:
            raise Refused("; ".join(blocked))
        present = {number: number not in self.without_indexer for number in self.layers}
        for number, has_indexer in present.items():
            if not has_indexer and wanted[number] == "S":
                wanted = f"{wanted[:number]}-{wanted[number + 1 :]}"
        check(wanted, present, self.total)
        shared = [letter != "F" for letter in wanted] + [False]
        for number, attention in self.layers.items():
            attention.skip_topk = shared[number]
            attention.next_skip_topk = shared[number + 1]
        # Both ends of a pipeline ask the config whether indices have to travel.
        self.config.indexer_types = ["shared" if each else "full" for each in shared[: self.total]]

    def describe(self) -> dict[str, Any]:
        arguments = self.arguments
        return {
            "boot_id": _BOOT,
            "rank": self.rank,
            "engine": "sglang",
            "kit": "1",
            "boot_letters": self.boot_letters,
            "num_hidden_layers": self.total,
            "first_layer": min(self.layers, default=None),
            "last_layer": max(self.layers, default=None),
            "letters": self.letters(),
            "calls": [self.calls.get(number) for number in range(self.total)],
            "index_topk": getattr(self.config, "index_topk", None),
            "vocab_size": getattr(self.config, "vocab_size", None),
            "kv_cache_dtype": str(getattr(arguments, "kv_cache_dtype", None)),
            "head_dtype": "float32" if getattr(arguments, "enable_fp32_lm_head", False) else "model",
            "tensor_parallel_size": getattr(arguments, "tp_size", 1),
            "pipeline_parallel_size": getattr(arguments, "pp_size", 1),
            "data_parallel_size": getattr(arguments, "dp_size", 1),
            "obstacles": obstacles(arguments),
            **({} if self.error is None else {"error": self.error}),
        }


def find_layers(model: Any, total: int) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for name, module in model.named_modules():
        match = _LAYER.search(name)
        if match is not None and hasattr(module, "skip_topk") and int(match.group(1)) < total:
            # None: the model has no indexers at all.
            if module.skip_topk is not None:
                found[int(match.group(1))] = module
    return dict(sorted(found.items()))


def obstacles(arguments: Any) -> list[str]:
    """Settings of the server under which a switched pattern would not be what is measured."""
    found: list[str] = []
    for phase in ("decode", "prefill"):
        if not getattr(arguments, f"disable_{phase}_cuda_graph", True):
            found.append(f"graphs are on: start the server with --disable-{phase}-cuda-graph")
    if not getattr(arguments, "disable_radix_cache", False):
        found.append("the radix cache is on: start the server with --disable-radix-cache")
    if getattr(arguments, "pp_size", 1) > 1:
        found.append("pipeline parallelism is on: only the first stage would answer what it runs")
    if getattr(arguments, "dp_size", 1) > 1:
        found.append("data parallelism is on: start a server for each replica")
    if getattr(arguments, "enable_two_batch_overlap", False):
        found.append("two-batch overlap is on: it cannot run with shared selections")
    if getattr(arguments, "speculative_algorithm", None):
        found.append("speculative decoding is on")
    if getattr(arguments, "enable_hisparse", False):
        found.append("HiSparse is on")
    return found


def state_of(controller: Any) -> _State:
    # Releases before 0.5.23 have the methods on the scheduler itself.
    scheduler = getattr(controller, "scheduler", controller)
    state = _STATES.get(id(scheduler))
    if state is None:
        state = _STATES[id(scheduler)] = _State(scheduler)
    return state


def around_set(original: Callable[..., Any], controller: Any, request: Any) -> Any:
    """Takes the pattern out of the request; what is left goes to SGLang."""
    requested = dict(request.server_args)
    words = {int(match.group(1)): value for key, value in requested.items() if (match := _WORD.match(key))}
    if not words:
        return original(controller, request)
    rest = copy.copy(request)
    rest.server_args = {key: value for key, value in requested.items() if not _WORD.match(key)}
    result = original(controller, rest)
    state: _State | None = None
    try:
        state = state_of(controller)
        state.switch(from_words({index: int(value) for index, value in words.items()}, state.total))
        state.calls.update(dict.fromkeys(state.calls, 0))
        state.error = None
    except Exception as error:  # noqa: BLE001
        result.updated = False
        if state is not None:
            state.error = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
    return result


def around_get(original: Callable[..., Any], controller: Any, request: Any) -> Any:
    """Adds what `describe` says to the scheduler's state, which `/server_info` shows."""
    result = original(controller, request)
    try:
        result.internal_state["indexcache"] = state_of(controller).describe()
    except Exception as error:  # noqa: BLE001
        result.internal_state["indexcache"] = {"boot_id": _BOOT, "rank": 0, "error": f"{type(error).__name__}: {error}"}
    return result


def hooked_class() -> str:
    """The class whose `set_internal_state` and `get_internal_state` this release calls, by its dotted name."""
    try:
        component = importlib.util.find_spec(_COMPONENT)
    except ModuleNotFoundError:
        component = None
    if component is not None:
        return f"{_COMPONENT}.SchedulerInternalStateController"
    return "sglang.srt.managers.scheduler.Scheduler"


def register() -> None:
    """The entry point. SGLang calls it in every process, before the scheduler exists."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    target = hooked_class()
    HookRegistry.register(f"{target}.set_internal_state", around_set, HookType.AROUND)
    HookRegistry.register(f"{target}.get_internal_state", around_get, HookType.AROUND)
