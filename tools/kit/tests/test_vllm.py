"""python -m unittest discover tools/kit/tests    (from any folder; needs no engine)"""

from __future__ import annotations

import sys
import types
import unittest
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from indexcache_live.vllm import PatternExtension, skip_unused_indexers  # noqa: E402
from stubs import Model, vllm_config  # noqa: E402


class Worker(PatternExtension):
    rank = 1

    def __init__(self, model: Model, config: Any) -> None:
        self.model = model
        self.vllm_config = config

    def get_model(self) -> Model:
        return self.model


def worker(letters: str = "FFFF", inner: bool = False, **changes: Any) -> Worker:
    return Worker(Model(letters, inner=inner), vllm_config(len(letters), **changes))


class Switching(unittest.TestCase):
    def test_both_paths(self) -> None:
        for inner in (False, True):
            one = worker(inner=inner)
            self.assertEqual(one.indexcache_describe()["letters"], "FFFF")
            answer = one.indexcache_set("FSSF")
            self.assertEqual(answer["letters"], "FSSF")
            self.assertEqual(answer["rank"], 1)
            one.model.forward()
            self.assertEqual(one.indexcache_count("1")["calls"], [1, 0, 0, 1])
            self.assertEqual(one.indexcache_count()["calls"], [0, 0, 0, 0])

    def test_draft_layers_stay_as_they_are(self) -> None:
        one = worker()
        one.indexcache_set("FSSS")
        self.assertFalse(one.model.layers["model.layers.99.self_attn"].skip_topk)

    def test_a_layer_that_started_shared(self) -> None:
        one = worker("FSFF")
        self.assertEqual(one.indexcache_describe()["letters"], "F-FF")
        self.assertIn("layer 1 has no indexer", one.indexcache_set("FFFF")["error"])
        self.assertEqual(one.indexcache_set("F-SF")["letters"], "F-SF")

    def test_a_rank_of_a_pipeline(self) -> None:
        one = Worker(Model("FF", first=2, draft=False), vllm_config(4))
        self.assertEqual(one.indexcache_describe()["letters"], "..FF")
        self.assertIn("layer 2 is the first of this rank", one.indexcache_set("FFSF")["error"])
        self.assertEqual(one.indexcache_set("FSFS")["letters"], "..FS")


class Refusals(unittest.TestCase):
    def test_settings_by_name(self) -> None:
        for path, value, word in (
            ("model_config__enforce_eager", False, "--enforce-eager"),
            ("cache_config__enable_prefix_caching", True, "prefix caching"),
            ("parallel_config__data_parallel_size", 2, "data parallelism"),
            ("parallel_config__decode_context_parallel_size", 2, "decode_context_parallel_size"),
            ("speculative_config", object(), "speculative"),
            ("kv_transfer_config", object(), "KV connector"),
        ):
            one = worker(**{path: value})
            self.assertIn(word, one.indexcache_set("FSSS")["error"])
            self.assertIn(word, one.indexcache_describe()["obstacles"][0])
            self.assertEqual(one.indexcache_describe()["letters"], "FFFF")

    def test_nothing_is_raised(self) -> None:
        one = worker()
        self.assertIn("2 letters", one.indexcache_set("FS")["error"])
        self.assertIn("'f'", one.indexcache_set("FfSS")["error"])
        self.assertIn("first of this rank", one.indexcache_set("SFFF")["error"])
        self.assertIn("error", one.indexcache_set())  # type: ignore[call-arg]
        self.assertIn("neither", one.indexcache_head("half")["error"])
        broken = Worker(None, vllm_config(4))  # type: ignore[arg-type]
        self.assertIn("AttributeError", broken.indexcache_describe()["error"])


class Loading(unittest.TestCase):
    def test_tensors_of_absent_indexers_are_left_out(self) -> None:
        module = types.ModuleType("stub_sparse_model")

        class Sparse:
            def named_parameters(self) -> Any:
                return [("layers.0.self_attn.indexer.wq_b.weight", 0), ("layers.1.self_attn.o_proj.weight", 0)]

            def load_weights(self, weights: Any) -> set[str]:
                return {name for name, _ in weights}

        Sparse.__module__ = module.__name__
        module.Sparse = Sparse  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        self.assertEqual(skip_unused_indexers([module.__name__, "there.is.none"]), ["stub_sparse_model.Sparse"])
        skip_unused_indexers([module.__name__])
        names = [
            "layers.0.self_attn.indexer.wq_b.weight",
            "layers.0.self_attn.indexer.wk.weight",
            "layers.1.self_attn.indexer.wq_b.weight",
            "layers.1.self_attn.o_proj.weight",
        ]
        loaded = Sparse().load_weights((name, None) for name in names)
        self.assertEqual(loaded, {names[0], names[1], names[3]})


if __name__ == "__main__":
    unittest.main()
