"""Writes a glm_moe_dsa checkpoint of random weights with GLM-5's layer geometry, about 1B parameters, in bf16.

    python tools/gpu/random_model.py OUT --layers 4

The sizes of a layer are GLM-5's (64 heads, latents of 512 + 64, 32 index heads of 128, top-k 2,048); what makes it small
is the number of layers, a dense MLP of 2,048 and a vocabulary of 8,192. Weights are normal with a deviation of
fan_in^-0.5, so that activations stay in float16's range.
"""

import argparse
import json
import os

import torch
from safetensors.torch import save_file

SIZES = {
    "layers": 4,
    "hidden": 6144,
    "intermediate": 2048,
    "vocab": 8192,
    "heads": 64,
    "q-rank": 2048,
    "kv-rank": 512,
    "nope": 192,
    "rope": 64,
    "value": 256,
    "index-heads": 32,
    "index-dim": 128,
    "index-topk": 2048,
}


def config(n):
    return {
        "architectures": ["GlmMoeDsaForCausalLM"],
        "model_type": "glm_moe_dsa",
        "dtype": "bfloat16",
        "vocab_size": n.vocab,
        "hidden_size": n.hidden,
        "intermediate_size": n.intermediate,
        "moe_intermediate_size": 64,
        "num_hidden_layers": n.layers,
        "num_attention_heads": n.heads,
        "num_key_value_heads": n.heads,
        "q_lora_rank": n.q_rank,
        "kv_lora_rank": n.kv_rank,
        "qk_nope_head_dim": n.nope,
        "qk_rope_head_dim": n.rope,
        "v_head_dim": n.value,
        "n_routed_experts": 2,
        "n_shared_experts": 1,
        "num_experts_per_tok": 1,
        "n_group": 1,
        "topk_group": 1,
        "routed_scaling_factor": 1.0,
        "norm_topk_prob": True,
        "first_k_dense_replace": n.layers,
        "mlp_layer_types": ["dense"] * n.layers,
        "indexer_types": ["full"] * n.layers,
        "index_n_heads": n.index_heads,
        "index_head_dim": n.index_dim,
        "index_topk": n.index_topk,
        "indexer_rope_interleave": True,
        "rope_interleave": True,
        "rms_norm_eps": 1e-05,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "max_position_embeddings": 202752,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }


def shapes(n):
    """Name and shape of every tensor; one dimension is a norm's."""
    yield "model.embed_tokens.weight", (n.vocab, n.hidden)
    for layer in range(n.layers):
        at = f"model.layers.{layer}"
        attention, indexer = f"{at}.self_attn", f"{at}.self_attn.indexer"
        yield f"{at}.input_layernorm.weight", (n.hidden,)
        yield f"{at}.post_attention_layernorm.weight", (n.hidden,)
        yield f"{attention}.q_a_proj.weight", (n.q_rank, n.hidden)
        yield f"{attention}.q_a_layernorm.weight", (n.q_rank,)
        yield f"{attention}.q_b_proj.weight", (n.heads * (n.nope + n.rope), n.q_rank)
        yield f"{attention}.kv_a_proj_with_mqa.weight", (n.kv_rank + n.rope, n.hidden)
        yield f"{attention}.kv_a_layernorm.weight", (n.kv_rank,)
        yield f"{attention}.kv_b_proj.weight", (n.heads * (n.nope + n.value), n.kv_rank)
        yield f"{attention}.o_proj.weight", (n.hidden, n.heads * n.value)
        yield f"{indexer}.wq_b.weight", (n.index_heads * n.index_dim, n.q_rank)
        yield f"{indexer}.wk.weight", (n.index_dim, n.hidden)
        yield f"{indexer}.k_norm.weight", (n.index_dim,)
        yield f"{indexer}.k_norm.bias", (n.index_dim,)
        yield f"{indexer}.weights_proj.weight", (n.index_heads, n.hidden)
        yield f"{at}.mlp.gate_proj.weight", (n.intermediate, n.hidden)
        yield f"{at}.mlp.up_proj.weight", (n.intermediate, n.hidden)
        yield f"{at}.mlp.down_proj.weight", (n.hidden, n.intermediate)
    yield "model.norm.weight", (n.hidden,)
    yield "lm_head.weight", (n.vocab, n.hidden)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=0)
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(args.seed)
    tensors = {}
    for name, shape in shapes(args):
        if len(shape) == 1:
            value = torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
        else:
            value = torch.randn(shape, generator=generator, device=device) * shape[-1] ** -0.5
        tensors[name] = value.to(torch.bfloat16).cpu()
    os.makedirs(args.out, exist_ok=True)
    save_file(tensors, os.path.join(args.out, "model.safetensors"), {"format": "pt"})
    with open(os.path.join(args.out, "config.json"), "w") as file:
        json.dump(config(args), file, indent=2)
    print(json.dumps({"out": args.out, "parameters": sum(tensor.numel() for tensor in tensors.values())}))


if __name__ == "__main__":
    main()
