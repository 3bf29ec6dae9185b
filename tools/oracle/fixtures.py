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
    "head_dim": 64,
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
AXK2 = {
    "architectures": ["AXK2ForCausalLM"],
    "model_type": "axk2",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "n_shared_experts": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "tie_word_embeddings": False,
    "use_cache": True,
    "transformers_version": "5.24.0",
}
DIMENSIONS = {
    "vocab_size": 83,
    "hidden_size": 40,
    "intermediate_size": 72,
    "moe_intermediate_size": 12,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "q_lora_rank": 36,
    "kv_lora_rank": 26,
    "qk_nope_head_dim": 14,
    "qk_rope_head_dim": 12,
    "v_head_dim": 20,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "index_n_heads": 16,
    "index_head_dim": 14,
    "index_topk": 7,
    "max_position_embeddings": 256,
}


def random_state(config_json, seed, scale=0.1):
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


def sequences(vocabulary, seed, lengths=(43, 40)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, vocabulary, (n,), generator=generator).tolist() for n in lengths]


def check_state(model, state):
    """Is every parameter of the loaded model the one we wrote?"""
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
            expected = state[stored_name(name)]
        assert torch.equal(tensor, expected.float()), name


def stored_name(name):
    """What checkpoints call a parameter of transformers' axk2; the other models' names are the same in both."""
    name = name.replace("self_attn.q_gate_proj.", "self_attn.q_b_proj.")
    return name.replace("layernorm.mlp.fc1.", "layernorm.W_down.").replace("layernorm.mlp.fc2.", "layernorm.W_up.")


def finish(folder, oracle, model, patterns, state):
    """Sanity of a fixture: it must be able to tell a right implementation from a wrong one."""
    patterns.set(oracle["indexers_present"])
    check_state(model, state)
    report = summary(oracle)
    first, second = (g["tokens"] for g in oracle["generations"])
    assert report["least_nll_move"] > 1e-3 and report["least_loss_gap"] > 1e-4, report
    assert len(set(first)) > 5 and len(set(second)) > 5 and first != second, report
    assert report["smallest_gap"] > 4e-3 and report["smallest_expert_margin"] > 3e-5, report
    if oracle["generation_ties"] == "torch":
        assert report["smallest_margin"] > 4e-6 and report["cached_run_difference"] < 1e-5, report
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


def glm_groups(folder, seed):
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
    state = random_state(config, seed)
    write(folder, config, state)
    ids = sequences(83, seed + 2000)
    made = record(folder, folder, ids, "FSFSF", notes="all layers Full, expert groups 4/2, first layer dense, F32")
    check_construction(folder, made[1], made[2], "FSFSF", ids[0])
    check_construction(folder, made[1], made[2], "FFSSS", ids[1])
    finish(folder, *made, state)


def mtp_layer(state, layers, seed):
    """A next-token-prediction layer behind the last one, as released checkpoints carry it; to be skipped."""
    generator = torch.Generator().manual_seed(seed)
    last, extra = f"model.layers.{layers - 1}.", f"model.layers.{layers}."
    hidden = state["model.norm.weight"].shape[0]
    shapes = {extra + name.removeprefix(last): t.shape for name, t in state.items() if name.startswith(last)}
    shapes |= {f"{extra}{n}.weight": (hidden,) for n in ("enorm", "hnorm", "shared_head.norm")}
    shapes |= {f"{extra}eh_proj.weight": (hidden, 2 * hidden)}
    shapes |= {f"{extra}{n}.weight": state["model.embed_tokens.weight"].shape for n in ("embed_tokens", "shared_head.head")}
    return {name: 0.08 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def glm_shared(folder, seed):
    config = GLM | DIMENSIONS | {
        "num_hidden_layers": 5,
        # Widths that divide by 16 and 32, for block quantisation.
        "hidden_size": 64,
        "intermediate_size": 96,
        "moe_intermediate_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": 48,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 20,
        "v_head_dim": 24,
        "n_routed_experts": 5,
        "n_group": 1,
        "topk_group": 1,
        "attention_bias": False,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "rms_norm_eps": 1e-05,
        "indexer_types": ["full", "shared", "full", "shared", "shared"],
        "index_topk_freq": 4,
        "index_skip_topk_offset": 3,
        "index_topk_pattern": None,
        "index_share_for_mtp_iteration": True,
        "mlp_layer_types": ["dense", "sparse", "sparse", "dense", "sparse"],
        "rope_parameters": {"rope_theta": 8000000, "rope_type": "default"},
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }
    state = cast(random_state(config, seed), torch.bfloat16, ("e_score_correction_bias", "k_norm"))
    assert "lm_head.weight" not in state
    extra = cast(mtp_layer(state, 5, seed + 1000), torch.bfloat16)
    names = list(state | extra)
    # Thirds, not at layer boundaries.
    shards = [{n: (state | extra)[n] for n in names[i::3]} for i in range(3)]
    write(folder, config, *shards)
    ids = sequences(83, seed + 2000)
    notes = "natively Shared layers without indexer tensors, BF16 (k_norm F32), tied head, MTP layer to skip, 3 shards"
    made = record(folder, folder, ids, "FSSSS", notes=notes)
    assert made[0]["native_pattern"] == "FSFSS"
    assert made[0]["unexpected_tensors"] and all(n.startswith("model.layers.5.") for n in made[0]["unexpected_tensors"])
    check_construction(folder, made[1], made[2], "FSSSS", ids[0])
    finish(folder, *made, state)


def glm_freq(folder, seed):
    config = GLM | DIMENSIONS | {
        "num_hidden_layers": 6,
        "moe_intermediate_size": 12,
        "n_routed_experts": 5,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 2,
        "attention_bias": True,
        "norm_topk_prob": False,
        "routed_scaling_factor": 2.5,
        "rms_norm_eps": 1e-05,
        "index_topk_freq": 2,
        "index_skip_topk_offset": 3,
        "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
        "tie_word_embeddings": False,
        "dtype": "float16",
    }
    state = random_state(config, seed)
    # Latents small before their norms: an epsilon of 1e-5 in place of 1e-6 must show.
    rank = config["kv_lora_rank"]
    for name, tensor in state.items():
        if ".q_a_proj." in name or ".indexer.wk." in name:
            tensor *= 0.05
        elif ".kv_a_proj_with_mqa." in name:
            tensor[:rank] *= 0.05
    state = cast(state, torch.float16)
    write(folder, config, state)
    ids = sequences(83, seed + 2000)
    notes = "schedule from index_topk_freq and index_skip_topk_offset, biases, F16, norm_topk_prob false, small latents"
    made = record(folder, folder, ids, "FSFSSS", notes=notes)
    model, patterns = made[1:]
    assert made[0]["native_pattern"] == "FFFSFS"
    assert not any("layers.3.self_attn.indexer" in n for n in state)
    patterns.set("FFFSFS")
    right = forward(model, ids[0]).logits
    for part in ("q_a_layernorm", "kv_a_layernorm", "k_norm"):
        norms = [m for n, m in model.named_modules() if n.endswith(part)]
        field = "eps" if part == "k_norm" else "variance_epsilon"
        for norm in norms:
            setattr(norm, field, 1e-5)
        moved = (forward(model, ids[0]).logits - right).abs().max().item()
        print(f"  {part} epsilon 1e-5 moves logits by {moved:.2g}")
        assert moved > 1e-3
        for norm in norms:
            setattr(norm, field, 1e-6)
    check_construction(folder, model, patterns, "FSFSSS", ids[0])
    finish(folder, *made, state)


def fuse_experts(state):
    """The experts as transformers holds them in memory: gate rows over up rows, stacked over experts."""
    fused = {n: t for n, t in state.items() if ".mlp.experts." not in n}
    for base in sorted({n.split(".experts.")[0] + ".experts." for n in state if ".mlp.experts." in n}):
        count = 1 + max(int(n.removeprefix(base).split(".")[0]) for n in state if n.startswith(base))
        part = lambda e, kind: state[f"{base}{e}.{kind}_proj.weight"]
        fused[base + "gate_up_proj"] = torch.stack([torch.cat([part(e, "gate"), part(e, "up")]) for e in range(count)])
        fused[base + "down_proj"] = torch.stack([part(e, "down") for e in range(count)])
    return fused


def glm_pattern(folder, seed):
    base = GLM | DIMENSIONS | {
        "num_hidden_layers": 5,
        "moe_intermediate_size": 12,
        "n_routed_experts": 6,
        "n_group": 2,
        "topk_group": 1,
        "attention_bias": False,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    del base["indexer_rope_interleave"]
    state = cast(random_state(base, seed), torch.bfloat16)
    config = base | {"index_topk_freq": 4, "index_topk_pattern": "FFSSF"}
    write(folder, config, fuse_experts(state))
    ids = sequences(83, seed + 2000)
    notes = "index_topk_pattern beside a freq that it overrides, fused experts, indexer tensors on Shared layers too, BF16"
    made = record(folder, folder, ids, "FFFFF", notes=notes, native="FFSSF")
    plain, info = load(folder)
    assert Patterns(plain).native == "FFSSF" and not info["missing_keys"] and len(info["unexpected_keys"]) == 10
    made[2].set("FFSSF")
    assert torch.equal(forward(plain, ids[0]).logits, forward(made[1], ids[0]).logits)
    assert plain.config.rope_parameters["rope_theta"] == 500000
    finish(folder, *made, state)


def check_patched_sharing(model, patterns, folder, pattern, ids):
    """The patched deepseek_v32 must equal glm_moe_dsa's own sharing, its indexer RoPE made half-split for the check."""
    from transformers.models.deepseek_v32 import modeling_deepseek_v32 as v32
    from transformers.models.glm_moe_dsa import modeling_glm_moe_dsa as glm

    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "glm_moe_dsa", "architectures": ["GlmMoeDsaForCausalLM"]}
    config["indexer_types"] = ["full" if letter == "F" else "shared" for letter in pattern]
    interleaved = glm.apply_rotary_pos_emb_interleave

    def rotate(q, k, cos, sin, position_ids=None, unsqueeze_dim=1):
        chosen = v32.apply_rotary_pos_emb if unsqueeze_dim == 2 else interleaved  # 2: the indexer's call
        return chosen(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)

    with tempfile.TemporaryDirectory() as scratch:
        for file in folder.iterdir():
            if file.name != "config.json":
                shutil.copy(file, scratch)
        (pathlib.Path(scratch) / "config.json").write_text(json.dumps(config))
        other, info = load(scratch)
    assert not info["missing_keys"] and type(other).__name__ == "GlmMoeDsaForCausalLM"
    patterns.set(pattern)
    glm.apply_rotary_pos_emb_interleave = rotate
    try:
        assert torch.equal(forward(other, ids).logits, forward(model, ids).logits), pattern
    finally:
        glm.apply_rotary_pos_emb_interleave = interleaved


def v32_yarn(folder, seed):
    config = V32 | DIMENSIONS | {
        "num_hidden_layers": 4,
        "moe_intermediate_size": 12,
        "n_group": 4,
        "topk_group": 2,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "rms_norm_eps": 1e-06,
        "max_position_embeddings": 2560,
        "rope_theta": 10000,
        "rope_scaling": {
            "beta_fast": 32,
            "beta_slow": 1,
            "factor": 40,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 64,
            "type": "yarn",
        },
        "dtype": "bfloat16",
    }
    state = cast(random_state(config, seed), torch.bfloat16)
    write(folder, config, state)
    ids = sequences(83, seed + 2000, (67, 40))
    notes = "YaRN (legacy rope_scaling), half-split indexer RoPE, mscale in the softmax scale, expert groups 4/2, BF16"
    made = record(folder, folder, ids, "FSFS", notes=notes)
    rope = made[1].config.rope_parameters
    assert rope["rope_type"] == "yarn" and rope["factor"] == 40 and rope["rope_theta"] == 10000
    plain = (14 + 12) ** -0.5
    assert made[1].model.layers[0].self_attn.scaling > 1.8 * plain
    for pattern in ("FSFS", "FFSS"):
        check_patched_sharing(made[1], made[2], folder, pattern, ids[0])
    finish(folder, *made, state)


BLOCK = 128
FP8_MAXIMUM = 448.0


def spread(scale, shape):
    """A block scale for every entry of the weight; the last block of a row or column may be partial."""
    rows = torch.arange(shape[0]) // BLOCK
    columns = torch.arange(shape[1]) // BLOCK
    return scale[rows][:, columns]


def quantise(weight):
    """Block FP8 E4M3: (quantised, scale) with weight ~ quantised * scale."""
    blocks = [-(-size // BLOCK) for size in weight.shape]
    scale = torch.empty(blocks)
    for i in range(blocks[0]):
        for j in range(blocks[1]):
            block = weight[i * BLOCK : (i + 1) * BLOCK, j * BLOCK : (j + 1) * BLOCK]
            scale[i, j] = block.abs().max() / FP8_MAXIMUM
    return (weight / spread(scale, weight.shape)).to(torch.float8_e4m3fn), scale


def v32_fp8(folder, seed):
    config = V32 | DIMENSIONS | {
        "num_hidden_layers": 3,
        "hidden_size": 152,
        "intermediate_size": 134,
        "moe_intermediate_size": 10,
        "q_lora_rank": 130,
        "kv_lora_rank": 132,
        "n_group": 4,
        "topk_group": 2,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000,
        "rope_scaling": {
            "beta_fast": 32,
            "beta_slow": 1,
            "factor": 40,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 4096,
            "type": "yarn",
        },
        "max_position_embeddings": 163840,
        "quantization_config": {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "weight_block_size": [BLOCK, BLOCK],
        },
        "dtype": "bfloat16",
    }
    state = random_state(config, seed, scale=0.06)
    stored, reference = {}, {}
    for name, tensor in state.items():
        if name.endswith("_proj.weight") and "weights_proj" not in name or ".wq_b." in name or ".wk." in name:
            # Blocks of different magnitude: a scale taken from the wrong block must show.
            tensor[BLOCK:] *= 0.5
            tensor[:, BLOCK:] *= 1.7
            stored[name], scale = quantise(tensor)
            stored[name + "_scale_inv"] = scale
            reference[name] = stored[name].float() * spread(scale, tensor.shape)
        else:
            stored[name] = tensor if "e_score_correction_bias" in name else tensor.to(torch.bfloat16)
            reference[name] = stored[name].float()
    assert stored["model.layers.1.self_attn.kv_a_proj_with_mqa.weight"].shape == (144, 152)
    # The last layer apart, and two scales in the other shard than their weight.
    apart = lambda n: n.startswith("model.layers.2.") != (
        n in ("model.layers.1.self_attn.q_b_proj.weight_scale_inv", "model.layers.2.self_attn.indexer.wk.weight_scale_inv")
    )
    shards = [{n: t for n, t in stored.items() if apart(n) == side} for side in (False, True)]
    write(folder, config, *shards)
    ids = sequences(83, seed + 2000)
    notes = "FP8 E4M3 with F32 scales in 128x128 blocks, partial last blocks, weight and scale in different shards"
    with tempfile.TemporaryDirectory() as scratch:
        plain = pathlib.Path(scratch) / "plain"
        write(plain, {k: v for k, v in config.items() if k != "quantization_config"} | {"dtype": "float32"}, reference)
        made = record(folder, plain, ids, "FSF", notes=notes)
        check_patched_sharing(made[1], made[2], plain, "FSF", ids[0])
    finish(folder, *made, reference)


def v32_ties(folder, seed):
    config = V32 | DIMENSIONS | {
        "num_hidden_layers": 3,
        "moe_intermediate_size": 12,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "index_n_heads": 2,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000,
        "rope_scaling": None,
        "dtype": "bfloat16",
    }
    state = cast(random_state(config, seed), torch.bfloat16)
    write(folder, config, state)
    ids = sequences(83, seed + 2000)
    notes = "two index heads: many index scores are exactly 0 and tie at the top-k boundary; BF16, default RoPE"
    made = record(folder, folder, ids, "FSF", notes=notes, all_scores=True, lowest_index=True)
    exact = [m == 0 for run in made[0]["runs"] for e in run["indexers"] for m in e["margins"] if m is not None]
    print(f"  rows tied exactly at the boundary: {sum(exact)} of {len(exact)}")
    assert sum(exact) > 20
    for run in made[0]["runs_ties_to_lowest_index"]:
        assert run["continuation"]["max_difference"] < 1e-5
        assert min(m for e in run["indexers"] for m in e["margins"] if m) > 4e-6
    finish(folder, *made, state)


def axk2(folder, seed, **other):
    config = AXK2 | DIMENSIONS | {
        "num_hidden_layers": 4,
        "gated_norm_rank": 5,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {"rope_theta": 10000, "rope_type": "default"},
        "dtype": "float32",
    } | other
    state = random_state(config, seed)
    if config["dtype"] == "bfloat16":
        state = cast(state, torch.bfloat16)
    write(folder, config, state)
    ids = sequences(83, seed + 2000)
    notes = "gated norms, query projection over latent and its raw form, sigmoid output gate"
    made = record(folder, folder, ids, "FSFS", notes=notes)
    model, patterns = made[1:]
    patterns.set("FFFF")
    right = forward(model, ids[0]).logits
    for part in ("input_layernorm.mlp.fc2", "post_attention_layernorm.mlp.fc2"):
        gates = [m for n, m in model.named_modules() if n.endswith(part)]
        kept = [gate.weight.clone() for gate in gates]
        for gate in gates:
            gate.weight.data.zero_()
        moved = (forward(model, ids[0]).logits - right).abs().max().item()
        for gate, weight in zip(gates, kept):
            gate.weight.data.copy_(weight)
        print(f"  without {part}: logits move by {moved:.2g}")
        assert moved > 1e-3
    finish(folder, *made, state)


def axk2_light(folder, seed):
    axk2(folder, seed, n_group=None, topk_group=None, first_k_dense_replace=1, dtype="bfloat16")


def axk2_groups(folder, seed):
    axk2(folder, seed, n_group=4, topk_group=2, mlp_layer_types=["dense", "sparse", "dense", "sparse"], dtype="bfloat16")


# The seeds were picked so that no row is near a tie and the checks of `finish` hold.
FIXTURES = {
    "glm-groups": (glm_groups, 17),
    "glm-shared": (glm_shared, 2),
    "glm-freq": (glm_freq, 3),
    "glm-pattern": (glm_pattern, 2),
    "v32-yarn": (v32_yarn, 2),
    "v32-fp8": (v32_fp8, 1),
    "v32-ties": (v32_ties, 1),
    "axk2-light": (axk2_light, 3),
    "axk2-groups": (axk2_groups, 6),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in sys.argv[1:] or FIXTURES:
        make, seed = FIXTURES[name]
        make(ROOT / name, seed)
