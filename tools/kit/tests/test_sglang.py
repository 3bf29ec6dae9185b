from __future__ import annotations

import sys
import unittest
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from indexcache_live import sglang  # noqa: E402
from indexcache_live.letters import Refused, from_words, to_words  # noqa: E402
from stubs import Model, sglang_scheduler  # noqa: E402


def original_set(_controller: Any, request: Any) -> Any:
    return SimpleNamespace(updated=not request.server_args or set(request.server_args) == {"pp_max_micro_batch_size"})


def original_get(_controller: Any, _request: Any) -> Any:
    return SimpleNamespace(internal_state={})


def request(**values: Any) -> Any:
    return SimpleNamespace(server_args=values)


class Plugin(unittest.TestCase):
    def setUp(self) -> None:
        sglang._STATES.clear()
        self.model = Model("FFFF", draft=False)
        self.controller = SimpleNamespace(scheduler=sglang_scheduler(self.model))

    def state(self) -> dict[str, Any]:
        return sglang.around_get(original_get, self.controller, None).internal_state["indexcache"]

    def test_switch_and_count(self) -> None:
        self.assertEqual(self.state()["letters"], "FFFF")
        self.assertTrue(sglang.around_set(original_set, self.controller, request(indexcache_shared_0=0b0110)).updated)
        self.assertEqual(self.state()["letters"], "FSSF")
        self.assertEqual(self.model.config.indexer_types, ["full", "shared", "shared", "full"])
        layers = [self.model.layers[f"model.layers.{i}.self_attn"] for i in range(4)]
        self.assertEqual([layer.next_skip_topk for layer in layers], [True, True, False, False])
        self.model.forward()
        self.assertEqual(self.state()["calls"], [1, 0, 0, 1])

    def test_other_requests_pass_through(self) -> None:
        self.assertTrue(sglang.around_set(original_set, self.controller, request(pp_max_micro_batch_size=2)).updated)
        both = request(pp_max_micro_batch_size=2, indexcache_shared_0=2)
        self.assertTrue(sglang.around_set(original_set, self.controller, both).updated)
        self.assertEqual(self.state()["letters"], "FSFF")
        self.assertFalse(sglang.around_set(original_set, self.controller, request(unknown=1)).updated)

    def test_refusals_say_why(self) -> None:
        for words, word in ((dict(indexcache_shared_0=1), "first of this rank"), (dict(indexcache_shared_1=0), "no others")):
            self.assertFalse(sglang.around_set(original_set, self.controller, request(**words)).updated)
            self.assertIn(word, self.state()["error"])
        for name, value, word in (
            ("disable_decode_cuda_graph", False, "--disable-decode-cuda-graph"),
            ("disable_radix_cache", False, "radix"),
            ("enable_two_batch_overlap", True, "two-batch"),
            ("speculative_algorithm", "EAGLE", "speculative"),
            ("dp_size", 2, "data parallelism"),
        ):
            sglang._STATES.clear()
            self.controller = SimpleNamespace(scheduler=sglang_scheduler(Model("FFFF"), **{name: value}))
            self.assertFalse(sglang.around_set(original_set, self.controller, request(indexcache_shared_0=2)).updated)
            self.assertIn(word, self.state()["error"])

    def test_a_layer_that_started_shared(self) -> None:
        sglang._STATES.clear()
        self.controller = SimpleNamespace(scheduler=sglang_scheduler(Model("FSFF", draft=False)))
        self.assertTrue(sglang.around_set(original_set, self.controller, request(indexcache_shared_0=0b0110)).updated)
        self.assertEqual(self.state()["letters"], "F-SF")
        self.assertFalse(sglang.around_set(original_set, self.controller, request(indexcache_shared_0=0)).updated)

    def test_a_layer_that_started_shared_with_an_indexer_of_no_weights(self) -> None:
        sglang._STATES.clear()
        self.controller = SimpleNamespace(scheduler=sglang_scheduler(Model("FSFF", draft=False, every=True)))
        self.assertEqual(self.state()["boot_letters"], "F-FF")
        self.assertFalse(sglang.around_set(original_set, self.controller, request(indexcache_shared_0=0)).updated)
        self.assertTrue(sglang.around_set(original_set, self.controller, request(indexcache_shared_0=0b0110)).updated)
        self.assertEqual(self.state()["letters"], "F-SF")

    def test_the_scheduler_itself_has_the_methods(self) -> None:
        scheduler = sglang_scheduler(self.model)
        self.assertTrue(sglang.around_set(original_set, scheduler, request(indexcache_shared_0=0b1000)).updated)
        described = sglang.around_get(original_get, scheduler, None).internal_state["indexcache"]
        self.assertEqual(described["letters"], "FFFS")

    def test_hooks_go_where_the_release_has_the_methods(self) -> None:
        hooked: list[str] = []
        registry: Any = ModuleType("sglang.srt.plugins.hook_registry")
        registry.HookRegistry = SimpleNamespace(register=lambda target, *_: hooked.append(target))
        registry.HookType = SimpleNamespace(AROUND="around")
        component = "sglang.srt.managers.scheduler_components.internal_state"
        for installed, owner in (
            ((), "sglang.srt.managers.scheduler.Scheduler"),
            ((component,), f"{component}.SchedulerInternalStateController"),
        ):
            hooked.clear()
            modules: dict[str, ModuleType] = {registry.__name__: registry}
            for name in (registry.__name__, *installed):
                for end in (at for at, character in enumerate(f"{name}.") if character == "."):
                    package = modules.setdefault(name[:end], ModuleType(name[:end]))
                    package.__path__ = []
                    package.__spec__ = ModuleSpec(name[:end], None)
            with patch.dict(sys.modules, modules):
                sglang.register()
            self.assertEqual(hooked, [f"{owner}.set_internal_state", f"{owner}.get_internal_state"])

    def test_a_model_that_cannot_be_read(self) -> None:
        broken = SimpleNamespace(scheduler=None)
        self.assertFalse(sglang.around_set(original_set, broken, request(indexcache_shared_0=0)).updated)
        self.assertIn("error", sglang.around_get(original_get, broken, None).internal_state["indexcache"])


class Words(unittest.TestCase):
    def test_round_trip(self) -> None:
        for letters in ("F", "FS" * 39, "F" * 32, "FSSS" * 8 + "F"):
            self.assertEqual(from_words(dict(enumerate(to_words(letters))), len(letters)), letters)

    def test_bits_beyond_the_last_layer(self) -> None:
        with self.assertRaises(Refused):
            from_words({0: 16}, 4)


if __name__ == "__main__":
    unittest.main()
