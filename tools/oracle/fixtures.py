"""Makes test/fixtures/<name>/: tiny random checkpoints, and what transformers computes for them.

    python tools/oracle/fixtures.py [name ...]
"""

import json
import pathlib
import shutil
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from record import record, summary
from reference import Patterns, forward, load

ROOT = pathlib.Path(__file__).resolve().parents[2] / "test" / "fixtures"

GLM = {
    "architectures": ["GlmMoeDsaForCausalLM"],
    "model_type": "glm_moe_dsa",
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": [1, 2],
    "pad_token_id": 2,
    "ep_size": 1,
    "hidden_act": "silu",
    "head_dim": 10,
    "initializer_range": 0.02,
    "moe_layer_freq": 1,
    "n_shared_experts": 1,
    "num_nextn_predict_layers": 1,
    "pretraining_tp": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "rope_interleave": True,
    "indexer_rope_interleave": True,
    "use_cache": True,
    "transformers_version": "5.17.0",
}
V32 = {
    "architectures": ["DeepseekV32ForCausalLM"],
    "model_type": "deepseek_v32",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "moe_layer_freq": 1,
    "n_shared_experts": 1,
    "num_nextn_predict_layers": 1,
    "pretraining_tp": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "tie_word_embeddings": False,
    "use_cache": True,
    "transformers_version": "5.17.0",
}
DIMENSIONS = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 88,
    "moe_intermediate_size": 20,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 40,
    "kv_lora_rank": 28,
    "qk_nope_head_dim": 22,
    "qk_rope_head_dim": 12,
    "v_head_dim": 18,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "index_n_heads": 16,
    "index_head_dim": 20,
    "index_topk": 7,
    "max_position_embeddings": 256,
}


def random_state(config_json, seed, scale=0.08):
    """A state dict with checkpoint names (an expert at a time), random in every entry: norms near 1, the rest near 0."""
    with tempfile.TemporaryDirectory() as scratch:
        plain = {k: v for k, v in config_json.items() if k != "quantization_config"}
        (pathlib.Path(scratch) / "config.json").write_text(json.dumps(plain))
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(scratch)).float()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
                if "inv_freq" in name:
                    continue
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(1 + 0.1 * noise if "norm" in name and name.endswith("weight") else scale * noise)
        model.save_pretrained(scratch)
        state = load_file(pathlib.Path(scratch) / "model.safetensors")
        return {name: tensor.clone() for name, tensor in sorted(state.items(), key=lambda item: in_order(item[0]))}


def in_order(name):
    """Sort key that puts layer 10 after layer 9."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in name.split(".")]


def cast(state, dtype, keep=("e_score_correction_bias",)):
    return {n: t if any(k in n for k in keep) else t.to(dtype) for n, t in state.items()}


def write(folder, config_json, *shards):
    """Writes config.json and one safetensors file, or several with their index."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_json, indent=2) + "\n")
    count = len(shards)
    names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)] if count > 1 else ["model.safetensors"]
    for name, shard in zip(names, shards):
        save_file(shard, folder / name, {"format": "pt"})
        (folder / name).chmod(0o644)
    if count == 1:
        return
    total = sum(t.numel() * t.element_size() for shard in shards for t in shard.values())
    weight_map = {tensor: name for name, shard in zip(names, shards) for tensor in shard}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def sequences(vocabulary, seed, lengths=(45, 41)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, vocabulary, (n,), generator=generator).tolist() for n in lengths]


def check_state(model, state):
    """Is every parameter of the loaded model the one we wrote?"""
    seen = 0
    for name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
        if "inv_freq" in name:
            continue
        if name.endswith("experts.gate_up_proj"):
            base = name.removesuffix("gate_up_proj")
            rows = [
                torch.cat([state[f"{base}{e}.gate_proj.weight"], state[f"{base}{e}.up_proj.weight"]])
                for e in range(tensor.shape[0])
            ]
            expected = torch.stack(rows)
        elif name.endswith("experts.down_proj"):
            base = name.removesuffix("down_proj")
            expected = torch.stack([state[f"{base}{e}.down_proj.weight"] for e in range(tensor.shape[0])])
        else:
            expected = state[name]
        assert torch.equal(tensor, expected.float()), name
        seen += 1
    return seen


def finish(folder, oracle, model, patterns, state):
    """Sanity of a fixture: it must be able to tell a right implementation from a wrong one."""
    assert check_state(model, state) > 0
    report = summary(oracle)
    assert report["least_move"] > 1e-3, report
    assert all(len(set(g["tokens"])) > 3 for g in oracle["generations"]), report
    assert oracle["generations"][0]["tokens"] != oracle["generations"][1]["tokens"], report
    # Sparse selection must matter too.
    patterns.set(oracle["native_pattern"])
    ids, kept = oracle["sequences"][0], model.config.index_topk
    sparse = forward(model, ids).logits
    set_topk(model, len(ids))
    moved = (forward(model, ids).logits - sparse).abs().max().item()
    set_topk(model, kept)
    assert moved > 0.05, moved
    report["dense_moves_logits"] = moved
    report["bytes"] = sum(f.stat().st_size for f in folder.iterdir())
    print(folder.name, json.dumps(report))


def set_topk(model, k):
    for layer in model.model.layers:
        if getattr(layer.self_attn.indexer, "index_topk", None) is not None:
            layer.self_attn.indexer.index_topk = k


def check_construction(folder, model, patterns, pattern, ids):
    """A pattern set in the config before construction must equal the same pattern set by stashing indexers."""
    types = ["full" if letter == "F" else "shared" for letter in pattern]
    built, info = load(folder, indexer_types=types)
    assert not info["missing_keys"], info["missing_keys"]
    assert Patterns(built).native == pattern
    patterns.set(pattern)
    assert torch.equal(forward(built, ids).logits, forward(model, ids).logits), pattern


def glm_groups(folder):
    config = GLM | DIMENSIONS | {
        "num_hidden_layers": 5,
        "n_group": 4,
        "topk_group": 2,
        "attention_bias": False,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "rms_norm_eps": 1e-05,
        "rope_parameters": {"rope_theta": 10000, "rope_type": "default"},
        "tie_word_embeddings": False,
        "dtype": "float32",
    }
    state = random_state(config, 11)
    write(folder, config, state)
    ids = sequences(101, 12)
    made = record(folder, folder, ids, "FSFSF", notes="all layers Full, expert groups 4/2, first layer dense, F32")
    check_construction(folder, made[1], made[2], "FSFSF", ids[0])
    check_construction(folder, made[1], made[2], "FFSSS", ids[1])
    finish(folder, *made, state)


FIXTURES = {"glm-groups": glm_groups}

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in sys.argv[1:] or FIXTURES:
        FIXTURES[name](ROOT / name)
