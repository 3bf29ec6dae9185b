"""Which layers does transformers make Full when a config says this? Writes test/engines/transformers-layers.json."""

import json
import pathlib
import subprocess
import tempfile

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / "test" / "engines" / "transformers-layers.json"
GLM_5_HALF = ROOT / "patterns" / "zai-org" / "GLM-5" / "half.json"

TINY = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "moe_intermediate_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 4,
    "n_routed_experts": 2,
    "num_experts_per_tok": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "index_topk": 2,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}

# Fields of config.json on a model of ten layers, right and wrong.
BY_HAND = {
    "nothing": {},
    "frequency 4": {"index_topk_freq": 4},
    "frequency 4, offset 1": {"index_topk_freq": 4, "index_skip_topk_offset": 1},
    "frequency 4, offset 3": {"index_topk_freq": 4, "index_skip_topk_offset": 3},
    "frequency 4, offset 0": {"index_topk_freq": 4, "index_skip_topk_offset": 0},
    "frequency 0": {"index_topk_freq": 0},
    "a pattern": {"index_topk_pattern": "FSFSSSFSSF"},
    "a pattern with use_index_cache": {"use_index_cache": True, "index_topk_pattern": "FSFSSSFSSF"},
    "a pattern beside a frequency": {"index_topk_pattern": "FSFSSSFSSF", "index_topk_freq": 4},
    "a pattern beside indexer_types": {
        "index_topk_pattern": "FSFSSSFSSF",
        "indexer_types": ["full"] * 9 + ["shared"],
    },
    "a pattern as a list": {"index_topk_pattern": ["full", "shared"] * 5},
    "a short pattern": {"index_topk_pattern": "FSFS"},
    "a long pattern": {"index_topk_pattern": "FSFSSSFSSFFFF"},
    "a pattern in lower case": {"index_topk_pattern": "FSFsssFSSF"},
    "a pattern that starts with S": {"index_topk_pattern": "SSFSSSFSSF"},
}


def write_config(folder: pathlib.Path, model_type: str, layers: int, fields: dict) -> None:
    names = {"glm_moe_dsa": "GlmMoeDsaForCausalLM", "deepseek_v32": "DeepseekV32ForCausalLM"}
    config = {"architectures": [names[model_type]], "model_type": model_type, **TINY}
    folder.mkdir(exist_ok=True)
    text = json.dumps({**config, "num_hidden_layers": layers, **fields}, indent=2)
    (folder / "config.json").write_text(text + "\n")


def observe(folder: pathlib.Path, **overrides) -> dict:
    """Builds the model as a user would and says which layers own an indexer, and whether it runs."""
    try:
        config = AutoConfig.from_pretrained(folder, **overrides)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        return {"build": type(error).__name__}
    full = [
        index for index, layer in enumerate(model.model.layers) if getattr(layer.self_attn, "indexer", None) is not None
    ]
    try:
        with torch.no_grad():
            model(torch.arange(8)[None])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        return {"full_layers": full, "forward": type(error).__name__}
    return {"full_layers": full, "forward": "runs"}


def indexcache(*arguments: str) -> str:
    program = ["node", str(ROOT / "bin" / "indexcache.js"), "pattern", *arguments, "--quiet"]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    cases = []
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        pattern = json.loads(GLM_5_HALF.read_text())["index_topk_pattern"]

        # What we emit, for a config without sharing fields and for one in which transformers has saved its own.
        for title, fields in {"plain": {}, "saved by transformers": {"indexer_types": ["full"] * 78}}.items():
            write_config(work / "model", "glm_moe_dsa", 78, fields)
            source = [str(GLM_5_HALF), "--for", "transformers", "--model", str(work / "model")]
            argument = indexcache(*source, "--write-config", str(work / "patched"), "--overwrite")
            patched = json.loads((work / "patched" / "config.json").read_text())
            emitted = {"model_type": "glm_moe_dsa", "layers": 78, "index_topk_pattern": pattern}
            cases.append(
                {
                    "case": f"written config, {title}",
                    **emitted,
                    "fields": {"indexer_types": patched["indexer_types"]},
                    **observe(work / "patched"),
                }
            )
            keyword, value = argument.split("=", 1)
            cases.append(
                {
                    "case": f"pasted argument, {title}",
                    **emitted,
                    "argument": argument,
                    "fields": {"indexer_types": patched["indexer_types"]},
                    **observe(work / "model", **{keyword: eval(value)}),
                }
            )

        for title, fields in BY_HAND.items():
            write_config(work / "model", "glm_moe_dsa", 10, fields)
            cases.append(
                {"case": title, "model_type": "glm_moe_dsa", "layers": 10, "fields": fields, **observe(work / "model")}
            )
        fields = BY_HAND["a pattern with use_index_cache"]
        write_config(work / "model", "deepseek_v32", 10, fields)
        cases.append(
            {
                "case": "DeepSeek-V3.2",
                "model_type": "deepseek_v32",
                "layers": 10,
                "fields": fields,
                **observe(work / "model"),
            }
        )
    result = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "cases": cases}
    TARGET.write_text(json.dumps(result, indent=1) + "\n")
    for case in cases:
        print(case["case"], case.get("build") or f"{len(case['full_layers'])} Full, {case['forward']}")


main()
