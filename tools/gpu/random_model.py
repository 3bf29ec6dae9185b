"""Writes a checkpoint of random weights with a released model's layer geometry, for speed and parity, not for text.

    python tools/gpu/random_model.py /tmp/random --layers 4 --seed 0 --ids 8192,32768,65536
    python tools/gpu/random_model.py /tmp/light --model axk2-light --layers 48 --ids 8192

`--model glm-5` (the default): every layer has a dense MLP (GLM-5's experts would not fit one GPU) and its own indexer.
`--model axk2-light`: A.X-K2-Light as transformers configures it, experts and all; 48 layers are 20 billion parameters.
Weights are bf16, normal with variance 1 / fan-in, norms 1, so that activations stay near 1; the outputs of attention and
MLP are scaled down by the depth, and queries up, so that attention is peaked enough for the choice of tokens to show in
the loss. Tensors are drawn
on the GPU where there is one: the same seed gives other weights on the CPU. --ids also writes OUT/ids-LENGTH.json, each
with one sequence of random ids (--sequences for more), for the other scripts here. Prints one JSON line.
"""

import argparse
import json
import math
import pathlib
import time

# By flag. GLM-5's --vocab and --intermediate (and --layers) are smaller than its 154880 and 12288 (and 78).
DIMENSIONS = {
    "glm-5": {
        "vocab": 8192,
        "hidden": 6144,
        "intermediate": 2048,
        "moe-intermediate": 2048,
        "heads": 64,
        "q-lora-rank": 2048,
        "kv-lora-rank": 512,
        "qk-nope-head-dim": 192,
        "qk-rope-head-dim": 64,
        "v-head-dim": 256,
        "index-n-heads": 32,
        "index-head-dim": 128,
        "index-topk": 2048,
        "max-position-embeddings": 202752,
    },
    # transformers' AXK2Config
    "axk2-light": {
        "vocab": 163840,
        "hidden": 2048,
        "intermediate": 5120,
        "moe-intermediate": 512,
        "heads": 32,
        "q-lora-rank": 384,
        "kv-lora-rank": 128,
        "qk-nope-head-dim": 64,
        "qk-rope-head-dim": 32,
        "v-head-dim": 64,
        "index-n-heads": 16,
        "index-head-dim": 128,
        "index-topk": 2048,
        "max-position-embeddings": 131072,
    },
}
AXK2_EXPERTS = 128
AXK2_GATE_RANK = 16
ROPE_THETA = 1e6
ATTENTION_LOGIT_STD = 2.0
SHARD_BYTES = 3_900_000_000


def config_of(args):
    return {**shared_config(args), **(axk2_config(args) if args.model == "axk2-light" else glm_config(args))}


def glm_config(args):
    return {
        "architectures": ["GlmMoeDsaForCausalLM"],
        "model_type": "glm_moe_dsa",
        "indexer_types": ["full"] * args.layers,
        "indexer_rope_interleave": True,
        "rope_interleave": True,
        "mlp_layer_types": ["dense"] * args.layers,
        "first_k_dense_replace": args.layers,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
    }


def axk2_config(args):
    return {
        "architectures": ["AXK2ForCausalLM"],
        "model_type": "axk2",
        "mlp_layer_types": ["dense"] + ["sparse"] * (args.layers - 1),
        "layer_types": ["indexed_attention"] * args.layers,
        "first_k_dense_replace": 1,
        "n_routed_experts": AXK2_EXPERTS,
        "num_experts_per_tok": 8,
        "n_group": None,
        "topk_group": None,
        "gated_norm_rank": AXK2_GATE_RANK,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }


def shared_config(args):
    return {
        "dtype": "bfloat16",
        "vocab_size": args.vocab,
        "hidden_size": args.hidden,
        "intermediate_size": args.intermediate,
        "moe_intermediate_size": args.moe_intermediate,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.heads,
        "num_key_value_heads": args.heads,
        "q_lora_rank": args.q_lora_rank,
        "kv_lora_rank": args.kv_lora_rank,
        "qk_nope_head_dim": args.qk_nope_head_dim,
        "qk_rope_head_dim": args.qk_rope_head_dim,
        "v_head_dim": args.v_head_dim,
        "index_n_heads": args.index_n_heads,
        "index_head_dim": args.index_head_dim,
        "index_topk": args.index_topk,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "max_position_embeddings": args.max_position_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def tensors_of(args):
    """(name, shape, scale) of every tensor: scale is the standard deviation, None for a norm's weight, 0 for its bias."""

    def linear(name, out, into, gain=1.0):
        return (f"{name}.weight", (out, into), gain / math.sqrt(into))

    axk2 = args.model == "axk2-light"
    qk = args.qk_nope_head_dim + args.qk_rope_head_dim
    into_residual = 1 / math.sqrt(2 * args.layers)

    def norm(name):
        """A norm of A.X-K2 multiplies its result by a gate of rank 16 (`post_attention_layernorm` of a dense layer does not)."""
        yield (f"{name}.norm.weight", (args.hidden,), None)
        yield linear(f"{name}.W_down", AXK2_GATE_RANK, args.hidden)
        yield linear(f"{name}.W_up", args.hidden, AXK2_GATE_RANK)

    def feed_forward(name, inner):
        yield linear(f"{name}.gate_proj", inner, args.hidden)
        yield linear(f"{name}.up_proj", inner, args.hidden)
        yield linear(f"{name}.down_proj", args.hidden, inner, into_residual)

    yield ("model.embed_tokens.weight", (args.vocab, args.hidden), 1.0)
    for layer in range(args.layers):
        at = f"model.layers.{layer}"
        attention, indexer, mlp = f"{at}.self_attn", f"{at}.self_attn.indexer", f"{at}.mlp"
        routed = axk2 and layer > 0
        for name, is_gated in (("input_layernorm", axk2), ("post_attention_layernorm", routed)):
            yield from norm(f"{at}.{name}") if is_gated else [(f"{at}.{name}.weight", (args.hidden,), None)]
        yield linear(f"{attention}.q_a_proj", args.q_lora_rank, args.hidden)
        yield (f"{attention}.q_a_layernorm.weight", (args.q_lora_rank,), None)
        if axk2:
            queries, into = args.heads * (qk + args.v_head_dim), 2 * args.q_lora_rank
        else:
            queries, into = args.heads * qk, args.q_lora_rank
        yield linear(f"{attention}.q_b_proj", queries, into, ATTENTION_LOGIT_STD)
        yield linear(f"{attention}.kv_a_proj_with_mqa", args.kv_lora_rank + args.qk_rope_head_dim, args.hidden)
        yield (f"{attention}.kv_a_layernorm.weight", (args.kv_lora_rank,), None)
        yield linear(f"{attention}.kv_b_proj", args.heads * (args.qk_nope_head_dim + args.v_head_dim), args.kv_lora_rank)
        yield linear(f"{attention}.o_proj", args.hidden, args.heads * args.v_head_dim, into_residual)
        yield linear(f"{indexer}.wq_b", args.index_n_heads * args.index_head_dim, args.q_lora_rank)
        yield linear(f"{indexer}.wk", args.index_head_dim, args.hidden)
        yield (f"{indexer}.k_norm.weight", (args.index_head_dim,), None)
        yield (f"{indexer}.k_norm.bias", (args.index_head_dim,), 0.0)
        yield linear(f"{indexer}.weights_proj", args.index_n_heads, args.hidden)
        if not routed:
            yield from feed_forward(mlp, args.intermediate)
            continue
        yield linear(f"{mlp}.gate", AXK2_EXPERTS, args.hidden)
        yield (f"{mlp}.gate.e_score_correction_bias", (AXK2_EXPERTS,), 0.0)
        yield from feed_forward(f"{mlp}.shared_experts", args.moe_intermediate)
        for expert in range(AXK2_EXPERTS):
            yield from feed_forward(f"{mlp}.experts.{expert}", args.moe_intermediate)
    yield ("model.norm.weight", (args.hidden,), None)
    yield linear("lm_head", args.vocab, args.hidden)


def shards_of(tensors, limit):
    """Cuts the tensors, in order, into shards of at most `limit` bytes (or of one larger tensor)."""
    shards, size = [[]], 0
    for tensor in tensors:
        tensor_bytes = 2 * math.prod(tensor[1])
        if shards[-1] and size + tensor_bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor_bytes
    return shards


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--model", choices=DIMENSIONS, default="glm-5")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    for name in DIMENSIONS["glm-5"]:
        absent = " or ".join(f"{values[name]} ({model})" for model, values in DIMENSIONS.items())
        parser.add_argument(f"--{name}", type=int, help=f"{absent} where absent")
    parser.add_argument("--shard-bytes", type=int, default=SHARD_BYTES)
    parser.add_argument("--ids", default="", help="comma-separated lengths of id files to write as well")
    parser.add_argument("--sequences", type=int, default=1, help="sequences in each id file")
    args = parser.parse_args()
    for name, value in DIMENSIONS[args.model].items():
        name = name.replace("-", "_")
        if getattr(args, name) is None:
            setattr(args, name, value)

    import torch
    from safetensors.torch import save_file

    started = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(args.seed)

    def draw(shape, scale):
        if scale is None:
            return torch.ones(shape, dtype=torch.bfloat16)
        if scale == 0.0:
            return torch.zeros(shape, dtype=torch.bfloat16)
        drawn = torch.randn(shape, generator=generator, device=device)
        return drawn.mul_(scale).to(torch.bfloat16).cpu()

    args.out.mkdir(parents=True, exist_ok=True)
    stale = [*args.out.glob("model*.safetensors"), args.out / "model.safetensors.index.json"]
    for path in stale:
        path.unlink(missing_ok=True)
    (args.out / "config.json").write_text(json.dumps(config_of(args), indent=2) + "\n")
    shards = shards_of(tensors_of(args), args.shard_bytes)
    parameters, weight_map = 0, {}
    for i, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{i:05}-of-{len(shards):05}.safetensors"
        drawn = {name: draw(shape, scale) for name, shape, scale in shard}
        save_file(drawn, args.out / file, metadata={"format": "pt"})
        parameters += sum(tensor.numel() for tensor in drawn.values())
        weight_map |= dict.fromkeys(drawn, file)
        del drawn
    if len(shards) > 1:
        index = {"metadata": {"total_size": 2 * parameters}, "weight_map": weight_map}
        (args.out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    ids = torch.Generator().manual_seed(args.seed)
    for length in (int(part) for part in args.ids.split(",") if part):
        rows = torch.randint(0, args.vocab, (args.sequences, length), generator=ids).tolist()
        (args.out / f"ids-{length}.json").write_text(json.dumps(rows) + "\n")
    line = {
        "checkpoint": str(args.out),
        "layers": args.layers,
        "seed": args.seed,
        "parameters": parameters,
        "bytes": 2 * parameters,
        "files": len(shards),
        "drawn_on": device,
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
