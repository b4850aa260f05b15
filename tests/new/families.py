"""Decoder families of transformers at a small random size, and what makes each of them what it is."""

from transformers import AutoConfig

SIZES = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 500, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
WINDOW = {"sliding_window": 16}
SLIDING = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
#: Fields beside SIZES: windows that a prompt is longer than, factors that are not 1.
FAMILIES = {
    "llama": {},
    "mistral": WINDOW,
    "ministral": WINDOW | {"head_dim": 32},
    "ministral3": {},
    "arcee": {},
    "seed_oss": {},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": WINDOW,
    "gemma3_text": WINDOW | {"layer_types": SLIDING},
    "phi": {},
    "phi3": WINDOW,
    "olmo": {},
    "olmo2": {},
    "olmo3": WINDOW,
    "granite": dict(
        embedding_multiplier=12.0, residual_multiplier=0.22, attention_multiplier=0.0156, logits_scaling=8.0
    ),
    "smollm3": {},
    "cohere": {},
    "cohere2": WINDOW,
    "glm": {},
    "glm4": {},
    "stablelm": {},
    "starcoder2": WINDOW,
    "exaone4": WINDOW,
    "nemotron": {},
    "helium": {},
    "ernie4_5": {},
    "hunyuan_v1_dense": {"head_dim": 32},
    "apertus": {},
    "bitnet": {},
    "cwm": WINDOW,
    "hyperclovax": dict(attention_multiplier=0.0156, residual_multiplier=0.22, logits_scaling=8.0),
    "internlm3": {},
    "iquestcoder": {},
    "jais2": {},
    "vaultgemma": WINDOW,
    "gemma4_text": WINDOW
    | dict(
        num_hidden_layers=6,
        layer_types=["sliding_attention", "full_attention"] * 3,
        num_kv_shared_layers=2,
        global_head_dim=64,
        hidden_size_per_layer_input=32,
        vocab_size_per_layer_input=500,
        use_double_wide_mlp=True,
        final_logit_softcapping=30.0,
        head_dim=32,
    ),
}

EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 64}
GROUPS = EXPERTS | dict(
    n_routed_experts=16, num_experts_per_tok=4, n_group=4, topk_group=2, n_shared_experts=1, first_k_dense_replace=1,
    routed_scaling_factor=1.5, norm_topk_prob=True,
)  # fmt: skip
LATENT = dict(
    q_lora_rank=96, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=32, v_head_dim=32, num_key_value_heads=8
)  # fmt: skip
CONVS = ["conv", "conv", "full_attention", "conv"]
RULE = dict(
    linear_num_key_heads=8, linear_num_value_heads=16, linear_key_head_dim=32, linear_value_head_dim=32, head_dim=32,
    layer_types=["linear_attention", "linear_attention", "linear_attention", "full_attention"],
)  # fmt: skip
#: Families with mixtures of experts, states or latents.
MIXED = {
    "qwen2_moe": EXPERTS | {"num_experts": 8, "shared_expert_intermediate_size": 160},
    "qwen3_moe": EXPERTS | {"num_experts": 16, "norm_topk_prob": True, "head_dim": 32},
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2},
    "granitemoe": dict(
        num_local_experts=8, num_experts_per_tok=2, embedding_multiplier=12.0, residual_multiplier=0.22,
        attention_multiplier=0.0156, logits_scaling=8.0,
    ),
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": 32},
    "gpt_oss": WINDOW | {"num_local_experts": 8, "num_experts_per_tok": 4, "head_dim": 32},
    "glm4_moe": GROUPS | {"head_dim": 32},
    "deepseek_v3": GROUPS | LATENT,
    "qwen3_next": EXPERTS | RULE | {"num_experts": 8, "shared_expert_intermediate_size": 64},
    "qwen3_5_text": RULE,
    "lfm2": {"layer_types": CONVS, "block_auto_adjust_ff_dim": False},
    "lfm2_moe": EXPERTS | {"layer_types": CONVS, "num_experts": 8, "num_dense_layers": 1},
    "lfm3": {"layer_types": CONVS, "head_dim": 32},
    "afmoe": EXPERTS | WINDOW | dict(
        num_experts=8, num_shared_experts=1, num_dense_layers=1, head_dim=32, mup_enabled=True, route_scale=2.0
    ),
    "cohere2_moe": WINDOW | dict(num_experts=8, num_experts_per_tok=2, num_shared_experts=1, head_dim=32),
    "dots1": GROUPS,
    "ernie4_5_moe": dict(moe_num_experts=8, moe_k=2, moe_intermediate_size=64, moe_num_shared_experts=1),
    "exaone_moe": EXPERTS | WINDOW | dict(num_experts=8, num_shared_experts=1, first_k_dense_replace=1),
    "flex_olmo": {"num_experts": 8, "num_experts_per_tok": 2},
    "flint": EXPERTS | WINDOW | {"num_experts": 8, "shared_expert_intermediate_size": 64, "head_dim": 32},
    "granitemoeshared": dict(
        num_local_experts=8, num_experts_per_tok=2, shared_intermediate_size=96, embedding_multiplier=12.0,
        residual_multiplier=0.22, attention_multiplier=0.0156, logits_scaling=8.0,
    ),
    "hunyuan_v1_moe": {"num_experts": 8, "moe_topk": 2, "head_dim": 32},
    "hy_v3": EXPERTS | {"num_experts": 8, "num_shared_experts": 1, "head_dim": 32},
    "mellum": EXPERTS | WINDOW | {"num_local_experts": 8, "head_dim": 32},
    "minimax_m2": {"num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": 32},
    "qwen3_5_moe_text": EXPERTS | RULE | {"num_experts": 8, "shared_expert_intermediate_size": 64},
    "solar_open": GROUPS | {"head_dim": 32},
    "glm4_moe_lite": GROUPS | LATENT,
    "youtu": LATENT,
    "minicpm3": LATENT | {"dim_model_base": 64},
}  # fmt: skip


def config(model_type, **more):
    """The family's configuration at a small size; heads of 32 where their size is the family's own."""
    fields = SIZES | (FAMILIES | MIXED)[model_type] | more
    found = AutoConfig.for_model(model_type, **fields)
    if "head_dim" not in fields and getattr(found, "head_dim", None) not in (None, 32):
        found = AutoConfig.for_model(model_type, **fields, head_dim=32)
    return found
