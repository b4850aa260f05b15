"""Faults that the finder had not been asked about when they were written down, as edits with their truths."""

from tests.checks.edits import Edit

Q, K, K_CACHE, V_CACHE = "self_attn.q_rope", "self_attn.k_rope", "self_attn.k_cache", "self_attn.v_cache"
ATTENDED = ("self_attn", K_CACHE, V_CACHE)
RULE = "linear_attention.GatedDeltaNet"

HEADS = [
    Edit(
        "qkv_cut_plainly",
        "tiny-mistral",
        (
            (
                "weights.fused_qkv",
                "    return _put(",
                "    parts = parts[0::3] + parts[1::3] + parts[2::3]\n    return _put(",
            ),
        ),
        (Q,),
        r"(q, k and v|q_proj|fused).*(chip|share|cut|one after the other|concat)",
        "all of q, then k, then v, cut into equal columns for the chips, which take their q | k | v out of it",
        system="n300",
    ),
    Edit(
        "gate_up_cut_plainly",
        "tiny-mistral",
        (
            (
                "mlp.GatedMLP.halves",
                "return [(p.weight, p.bias) for p in (named(hf_mlp, GATE), named(hf_mlp, UP))]",
                "fused = torch.cat([named(hf_mlp, n).weight for n in (GATE, UP)]).chunk(4)\n"
                "        return [(torch.cat(fused[i::2]), None) for i in (0, 1)]",
            ),
        ),
        ("mlp",),
        r"(gate.*up|fused).*(chip|share|cut|one after the other|concat)",
        "gate and up in one matrix, cut into equal columns: chip 0 has all of gate, chip 1 all of up",
        system="n300",
    ),
    Edit(
        "attends_before_the_cache_is_written",
        "tiny-mistral",
        (
            (
                "attention.Attention.decode",
                "    self.cache.update(k, v, step)\n    attended = self.attend(q, step)",
                "    attended = self.attend(q, step)\n    self.cache.update(k, v, step)",
            ),
        ),
        ("self_attn",),
        r"own key|before .*(written|updated)",
        "steps attend, and write their key and value afterwards",
        phase="decode",
    ),
    Edit(
        "queries_and_keys_exchanged",
        "tiny-allam",
        (
            (
                "weights.fused_qkv",
                "of_heads(q, query, qk_order), of_heads(k, kv, qk_order)",
                "of_heads(k, query, qk_order), of_heads(q, kv, qk_order)",
            ),
        ),
        (Q,),
        r"k_proj in the place of .*q_proj|q.*k.*exchanged|k_proj",
        "q has the weight of k, and k that of q",
    ),
    Edit(
        "key_norm_left_out",
        "qwen3",
        (("attention.Attention.turn", "self.k_rope(self.k_norm(k), step)", "self.k_rope(k, step)"),),
        (K,),
        r"k_norm.*(left out|skip|missing|not run|did not)|without .*norm|not normed",
        "k is not normed",
    ),
    Edit(
        "epsilon_of_head_norms",
        "qwen3",
        (("norm.HeadNorm.__init__", "epsilon(hf_norm) / more", "1e-5"),),
        ("self_attn.q_norm",),
        r"epsilon",
        "the norms of q and k have the epsilon 1e-5, HF's have 1e-6",
    ),
    Edit(
        "steps_without_head_norms",
        "qwen3",
        (
            (
                "attention.Attention.turn",
                "    return self.q_rope",
                "    if step.is_decode:\n"
                "        return self.q_rope(q, step), self.k_rope(k, step)\n    return self.q_rope",
            ),
        ),
        (Q,),
        r"q_norm.*(left out|skip|missing|not run|did not)|without .*norm|not normed",
        "steps do not norm q and k",
        phase="decode",
    ),
    Edit(
        "q_bias_in_metas_order",
        "tiny-qwen2",
        (
            (
                "weights.fused_qkv_bias",
                "    return fused_qkv(",
                "    q = q.unflatten(0, (-1, 2, len(qk_order) // 2)).transpose(1, 2).flatten(0, 2)\n"
                "    return fused_qkv(",
            ),
        ),
        (Q,),
        r"bias",
        "q's bias is in Meta's order, its weight in HF's",
    ),
]

LAYER = [
    Edit(
        "norms_before_instead_of_after",
        "olmo2",
        (
            (
                "file.DecoderLayer.forward",
                "self.post_attention_layernorm(self.self_attn(x, step))",
                "self.self_attn(self.post_attention_layernorm(x), step)",
            ),
        ),
        (Q, "self_attn", "post_attention_layernorm"),
        r"post_attention_layernorm of the layer's input for what is taken in self_attn.q_proj",
        "post_attention_layernorm stands before attention, HF has it after",
    ),
    Edit(
        "norm_of_the_sum",
        "olmo2",
        (
            (
                "file.DecoderLayer.forward",
                "ttnn.add(x, self.post_attention_layernorm(self.self_attn(x, step)))",
                "self.post_attention_layernorm(ttnn.add(x, self.self_attn(x, step)))",
            ),
        ),
        ("post_attention_layernorm", "self_attn.residual"),
        r"(norm|takes).*(residual|sum|stream)|residual.*(before|norm)",
        "post_attention_layernorm norms the sum with the residual, HF attention's output",
    ),
    Edit(
        "norm_overwrites_the_residual",
        "tiny-llama",
        (
            (
                "file.DecoderLayer.forward",
                "    x = ttnn.add(x, self.self_attn(self.input_layernorm(x), step))",
                "    normed = self.input_layernorm(x)\n    ttnn.copy(normed, x)\n"
                "    x = ttnn.add(x, self.self_attn(normed, step))",
            ),
        ),
        ("self_attn.residual",),
        r"norm",
        "the residual is what input_layernorm gave, not what it took",
    ),
    Edit(
        "mlp_residual_of_the_layers_input",
        "tiny-mistral",
        (
            (
                "file.DecoderLayer.forward",
                "    x = ttnn.add(x, self.self_attn(self.input_layernorm(x), step))\n"
                "    return ttnn.add(x, self.mlp(self.post_attention_layernorm(x)))",
                "    y = ttnn.add(x, self.self_attn(self.input_layernorm(x), step))\n"
                "    return ttnn.add(x, self.mlp(self.post_attention_layernorm(y)))",
            ),
        ),
        ("mlp.residual",),
        r"layer's input|input of the layer|attention.*(left out|missing|not)|without .*(attention|self_attn)",
        "the MLP is added to the layer's input: attention is not in the stream",
    ),
    Edit(
        "norms_in_bfloat8_b",
        "tiny-llama",
        (
            (
                "norm.RMSNorm.forward",
                "return ttnn.rms_norm(x, epsilon=self.eps, weight=self.weight, compute_kernel_config=self.compute)",
                "narrow = ttnn.rms_norm(x, epsilon=self.eps, weight=self.weight, "
                "compute_kernel_config=self.compute)\n"
                "    return ttnn.typecast(ttnn.typecast(narrow, ttnn.bfloat8_b), ttnn.bfloat16)",
            ),
        ),
        ("input_layernorm",),
        r"bfloat8_b",
        "what norms give is bfloat8_b",
    ),
    Edit(
        "norm_by_the_sum_of_squares",
        "qwen3",
        (
            (
                "norm.RMSNorm.forward",
                "return ttnn.rms_norm(x, epsilon=self.eps, weight=self.weight, compute_kernel_config=self.compute)",
                "return ttnn.mul(ttnn.rms_norm(x, epsilon=self.eps, weight=self.weight, "
                "compute_kernel_config=self.compute), x.shape[-1] ** -0.5)",
            ),
        ),
        ("input_layernorm",),
        r"sum of squares in the place of the mean",
        "x over the root of the sum of its squares, not of their mean",
    ),
    Edit(
        "norm_weight_in_columns",
        "tiny-llama",
        (
            (
                "optimized.layers.ShardedRMSNorm.__init__",
                ".view(1, 1, -1, TILE)",
                ".view(TILE, -1).T.reshape(1, 1, -1, TILE)",
            ),
        ),
        ("input_layernorm",),
        r"(weight|column).*(order|permut|transpos)|order.*weight",
        "the norm's weight is laid out by columns of tiles",
        style="optimized",
    ),
    Edit(
        "half_of_the_chips_summed",
        "tiny-mistral",
        (
            (
                "parallel.Mesh.all_reduce",
                "total = ttnn.all_reduce(x)",
                "each = ttnn.all_gather(x, dim=0)\n"
                "        half = ttnn.slice(each, (0, 0, 0, 0), (self.chips // 2, *tuple(x.shape)[1:]))\n"
                "        total = ttnn.sum(half, dim=0, keepdim=True)",
            ),
        ),
        ("self_attn",),
        r"chips? (4|5|6|7|0 to 3|4 to 7)|4 of 8|half of the chips",
        "the sum after o_proj is that of chips 0 to 3",
        system="t3000",
    ),
    Edit(
        "residual_multiplier_of_attention_only",
        "new granite",
        (
            (
                "file.DecoderLayer.forward",
                "ttnn.multiply(self.mlp(self.post_attention_layernorm(x)), self.residual_multiplier)",
                "self.mlp(self.post_attention_layernorm(x))",
            ),
        ),
        ("mlp.residual",),
        r"residual_multiplier",
        "the MLP is added without residual_multiplier",
    ),
]

ENDS = [
    Edit(
        "logits_multiplied_by_their_scale",
        "new granite",
        (("file.Granite.logits", "1 / self.config.logits_scaling", "self.config.logits_scaling"),),
        ("lm_head",),
        r"logits_scaling|64|times 8",
        "logits are multiplied by logits_scaling, HF divides",
        layer=None,
    ),
    Edit(
        "tied_head_of_the_scaled_table",
        "gemma3",
        (
            (
                "file.Gemma3.__init__",
                "LMHead(hf_model.model.embed_tokens.weight,",
                "LMHead(hf_model.model.embed_tokens.weight * config.hidden_size**0.5,",
            ),
        ),
        ("lm_head",),
        r"16|sqrt\(hidden_size\)",
        "the tied head has the token table with its scale in it",
        layer=None,
    ),
    Edit(
        "head_in_lofi",
        "tiny-llama",
        (
            (
                "weights.LMHead.__init__",
                "self.compute = precision.linear",
                "self.compute = ttnn.WormholeComputeKernelConfig(\n"
                "        math_fidelity=ttnn.MathFidelity.LoFi, fp32_dest_acc_en=True)",
            ),
        ),
        ("lm_head",),
        r"LoFi",
        "the head's product runs in LoFi, the file declares HiFi3",
        layer=None,
    ),
    Edit(
        "logits_of_the_position_before",
        "tiny-mistral",
        (
            (
                "generate.CausalLM._prompt_row",
                "return [[each[group, : len(prompt) - first] for each in whole]",
                "return [[torch.cat((each[group, :1], each[group, : len(prompt) - first - 1])) for each in whole]",
            ),
        ),
        ("lm_head",),
        r"position",
        "a prompt's logits come one position late: the last are those of the token before",
        layer=None,
    ),
    Edit(
        "first_steps_token_kept",
        "tiny-llama",
        (
            (
                "generate.CausalLM._send",
                "    for buffer, (value, dtype) in zip("
                "self.decode_inputs, self._host_inputs(tokens, positions), strict=True):",
                "    pairs = list(zip(self.decode_inputs, self._host_inputs(tokens, positions), strict=True))\n"
                "    sent, self.sent = hasattr(self, 'sent'), True\n"
                "    for buffer, (value, dtype) in pairs[sent:]:",
            ),
        ),
        ("embed_tokens",),
        r"one token, \d+, in every step.*not written again",
        "the buffer of tokens is written before the first step only",
        phase="decode",
        layer=None,
    ),
]

ROTATION = [
    Edit(
        "factor_of_llama_3_1",
        "tiny-llama",
        (
            (
                "rope.RopeTables.__init__",
                "        rotary = type(hf_rotary)(config=hf_config)",
                "        other = __import__('copy').deepcopy(hf_config)\n"
                "        other.rope_parameters['factor'] = 8.0\n"
                "        rotary = type(hf_rotary)(config=other)",
            ),
        ),
        (Q,),
        r"factor",
        "llama3's factor is 8, that of Llama-3.1, the checkpoint's is 32",
    ),
    Edit(
        "long_factors",
        "phi3",
        (
            ("rope.RopeTables.__init__", "torch.arange(length)[None]", "torch.arange(8192)[None]"),
            ("rope.RopeTables.__init__", "cos[0]", "cos[0, :length]"),
            ("rope.RopeTables.__init__", "sin[0]", "sin[0, :length]"),
        ),
        (Q,),
        r"long",
        "tables of all positions that the model may have: HF's rotation takes its long factors then",
    ),
    Edit(
        "window_in_every_layer",
        "gemma3",
        (
            (
                "file.DecoderLayer.__init__",
                "window=config.sliding_window if sliding else None",
                "window=config.sliding_window",
            ),
        ),
        ("self_attn",),
        r"window of (the last )?16",
        "the full layer has a window too",
        layer=5,
    ),
    Edit(
        "steps_without_scale",
        "gemma3",
        (
            (
                "attention.Attention.attend",
                "**self._sdpa(TILE, self.cache_len, self.step_sinks)",
                "**{k: v for k, v in self._sdpa(TILE, self.cache_len, self.step_sinks).items() if k != 'scale'}",
            ),
        ),
        ("self_attn",),
        r"scale",
        "steps scale by 1 / sqrt(head_dim), HF by query_pre_attn_scalar",
        phase="decode",
    ),
]

CACHES = [
    Edit(
        "one_cache_for_all_layers",
        "tiny-llama",
        (
            (
                "attention.Attention._cache",
                "    return cache.layer(",
                "    cache.one = getattr(cache, 'one', None) or cache.layer(\n"
                "        self.heads, self.width, self.mesh, precision, layer_type\n"
                "    )\n"
                "    return cache.one if cache.one else cache.layer(",
            ),
        ),
        ATTENDED,
        r"layer [12]|last layer|(another|other) layer|one cache|overwrit|shared",
        "all layers write the same cache",
        phase=None,
    ),
    Edit(
        "cache_in_bfloat8_b",
        "qwen3",
        (
            ("cache._LayerCache.__init__", "self.dtype = precision.cache", "self.dtype = ttnn.bfloat8_b"),
            ("cache._LayerCache.__init__", "dtype=precision.cache", "dtype=ttnn.bfloat8_b"),
        ),
        ATTENDED,
        r"bfloat8_b",
        "the cache is bfloat8_b, the file declares bfloat16",
        phase=None,
    ),
    Edit(
        "page_table_sent_once",
        "tiny-llama",
        (("cache.Blocks.draw", "self.changed = True", "pass"),),
        ATTENDED,
        r"block|page|64",
        "the page table is sent before the first step only: the block drawn for position 64 is not in it",
        phase="decode",
        prompt=56,
        steps=14,  # users that are behind write over what this one has there
        pages=1024,
        user=1,
    ),
    Edit(
        "second_chunk_rotated_from_0",
        "tiny-llama",
        (
            (
                "rope.RopeTables.of_prompt",
                "(0, 0, start, 0), (1, 1, start + rows, width)",
                "(0, 0, 0, 0), (1, 1, rows, width)",
            ),
        ),
        (Q,),
        r"64|chunk",
        "the second chunk of a prompt is rotated from position 0 on",
        prompt=100,
        pages=64,
    ),
    Edit(
        "second_chunk_attends_from_0",
        "tiny-mistral",
        (("cache.BlockCache.attend_prompt", "step.start", "0"),),
        ("self_attn",),
        r"64|chunk",
        "the second chunk of a prompt attends as if it were the first",
        prompt=100,
        pages=64,
    ),
]

FORMATS = [
    Edit(
        "queries_in_bfloat8_b",
        "tiny-llama",
        (
            (
                "attention.Attention.prefill",
                "    attended = self.attend_prompt",
                "    q, k, v = (ttnn.typecast(t, ttnn.bfloat8_b) for t in (q, k, v))\n"
                "    attended = self.attend_prompt",
            ),
        ),
        ("self_attn",),
        r"bfloat8_b",
        "q, k and v of a prompt are rounded to bfloat8_b before attention",
    ),
    Edit(
        "approximate_exp",
        "tiny-mistral",
        (("attention.Attention._sdpa", "exp_approx_mode=not self.exact_exp", "exp_approx_mode=True"),),
        ("self_attn",),
        r"approx",
        "attention has the approximate exp, the file declares the exact one",
        phase=None,
    ),
    Edit(
        "down_without_fp32_destination",
        "tiny-allam",
        (
            (
                "mlp.MLP.down",
                "self.compute)",
                "ttnn.WormholeComputeKernelConfig(\n"
                "        math_fidelity=ttnn.MathFidelity.HiFi3, fp32_dest_acc_en=False, packer_l1_acc=True))",
            ),
        ),
        ("mlp",),
        r"fp32|destination|float32",
        "down_proj has no fp32 destination, the file declares one",
    ),
]

MIXTURES = [
    Edit(
        "routing_weights_of_chip_0",
        "qwen3_moe",
        (
            (
                "moe.Experts.__init__",
                "own = torch.eye(len(gate), self.count * mesh.tensor_ways)",
                "own = torch.eye(len(gate), self.count).repeat(1, mesh.tensor_ways)",
            ),
        ),
        ("mlp",),
        r"chip|experts? .*(0|8)",
        "every chip takes the routing weights of chip 0's experts",
        system="p300",
    ),
    Edit(
        "router_in_bfloat16",
        "qwen3_moe",
        (("router.Router.forward", "dtype=ttnn.float32", "dtype=ttnn.bfloat16"),),
        ("mlp",),
        r"router.*bfloat16|bfloat16.*(router|scores|gate)",
        "the router's scores are bfloat16, HF's float32",
        phase=None,
        layer=1,  # where a token has two experts as near as that
        system="p300",
    ),
    Edit(
        "weights_of_corrected_scores",
        "new glm4_moe",
        (
            (
                "router.Router.forward",
                "weight = ttnn.where(chosen, scores, 0.0)",
                "weight = ttnn.where(chosen, self._open(scores), 0.0)",
            ),
        ),
        ("mlp",),
        r"correct",
        "experts are weighed by the corrected scores, HF corrects for the choice only",
        layer=1,
    ),
    Edit(
        "routed_scale_left_out",
        "new deepseek_v3",
        (("router.Router.forward", "if r.scale != 1.0:", "if False:"),),
        ("mlp",),
        r"routed_scaling_factor|1\.5|scale",
        "routed_scaling_factor, 1.5, is left out",
        layer=1,
    ),
    Edit(
        "shared_expert_summed_over_chips",
        "new qwen2_moe",
        (
            (
                "moe.MixtureOfExperts.forward",
                "out = self.mesh.all_reduce(self.experts(x, self.gate(x)))",
                "out = self.experts(x, self.gate(x))",
            ),
            (
                "moe.MixtureOfExperts.forward",
                "return ttnn.mul(out, 0.5) if self.averaged else out",
                "return self.mesh.all_reduce(out)",
            ),
        ),
        ("mlp",),
        r"shared.*(twice|2|each|every)",
        "the shared expert's output, already summed, is summed over the chips again",
        system="n300",
    ),
    Edit(
        "shared_gate_left_out",
        "new qwen2_moe",
        (("moe.MixtureOfExperts.forward", "if self.shared_expert_gate is not None:", "if False:"),),
        ("mlp",),
        r"shared_expert_gate|shared.*gate|gate.*shared",
        "the shared expert is not gated",
    ),
    Edit(
        "up_without_one",
        "gpt_oss",
        (("moe.ClampedExperts.inner", "ttnn.mul(ttnn.add(up, 1.0), glu)", "ttnn.mul(up, glu)"),),
        ("mlp",),
        r"\+ ?1\b|up.*1",
        "up in the place of up + 1",
        system="p150",
    ),
    Edit(
        "halves_for_interleaved",
        "gpt_oss",
        (("moe.ClampedExperts.split", "gate_up[:, ::2], gate_up[:, 1::2]", "*gate_up.chunk(2, 1)"),),
        ("mlp",),
        r"interleav|in turn|halves|half",
        "gate and up are the halves of the stack, HF has them interleaved",
        system="p150",
    ),
    Edit(
        "square_experts_not_transposed",
        "gpt_oss",
        (("moe.ClampedExperts.split", "hf.down_proj.transpose(1, 2)", "hf.down_proj"),),
        ("mlp",),
        r"transpos",
        "the experts' down_proj, which is square, is not transposed",
        system="p150",
    ),
    Edit(
        "steps_without_sinks",
        "gpt_oss",
        (("attention.Attention.attend", "self.step_sinks", "None"),),
        ("self_attn",),
        r"sink",
        "steps have no sinks",
        phase="decode",
        system="p150",
    ),
]

STATES = [
    Edit(
        "gate_by_sigmoid",
        "qwen3_5",
        ((f"{RULE}.forward", "z = ttnn.silu(linear(self.in_proj_z))", "z = ttnn.sigmoid(linear(self.in_proj_z))"),),
        ("linear_attn",),
        r"sigmoid",
        "the output gate is sigmoid(z), HF's silu(z)",
    ),
    Edit(
        "a_and_b_exchanged",
        "qwen3_5",
        ((f"{RULE}.__init__", "self.in_proj_b, self.in_proj_a = (", "self.in_proj_a, self.in_proj_b = ("),),
        ("linear_attn",),
        r"in_proj_[ab].*in_proj_[ab]|exchang",
        "in_proj_a and in_proj_b are exchanged",
    ),
    Edit(
        "convolution_without_silu",
        "qwen3_5",
        (
            (
                f"{RULE}.forward",
                "ttnn.silu(self.conv1d(linear(self.in_proj_qkv), step))",
                "self.conv1d(linear(self.in_proj_qkv), step)",
            ),
        ),
        ("linear_attn",),
        r"silu|activation",
        "no silu after the convolution",
    ),
    Edit(
        "decay_without_its_bias",
        "qwen3_5",
        (
            (
                f"{RULE}.forward",
                "ttnn.add(linear(self.in_proj_a, dtype=ttnn.float32), self.dt_bias)",
                "linear(self.in_proj_a, dtype=ttnn.float32)",
            ),
        ),
        ("linear_attn",),
        r"dt_bias",
        "dt_bias is not added",
    ),
    Edit(
        "state_stays",
        "qwen3_5",
        ((f"{RULE}.decode", "        ttnn.copy(moved, state)\n", ""),),
        ("linear_attn",),
        r"state",
        "steps do not write the state that they moved on",
        phase="decode",
    ),
    Edit(
        "padding_in_the_state",
        "qwen3_5",
        ((f"{RULE}.prefill", "ttnn.mul(x, step.tokens.mask)", "x"),),
        ("linear_attn",),
        r"padd",
        "the rows that pad a prompt to whole tiles move its state on",
        phase="decode",
    ),
    Edit(
        "b_and_c_exchanged",
        "new lfm2",
        (
            (
                "state.ShortConv.forward",
                "ttnn.mul(self.conv(ttnn.mul(b, inner), step), c)",
                "ttnn.mul(self.conv(ttnn.mul(c, inner), step), b)",
            ),
        ),
        ("conv",),
        r"pieces 0 and 1 .*in each other's place in conv, chunk of `B, C, x",
        "B and C are exchanged",
    ),
    Edit(
        "latent_scale_of_the_unturned_part",
        "new deepseek_v3",
        (("latent_attention.LatentAttention.__init__", "hf.scaling, rank", "hf.qk_nope_head_dim**-0.5, rank"),),
        ("self_attn",),
        r"scale",
        "the scale is that of the 32 dims that do not turn, a head's are 64",
    ),
    Edit(
        "latent_norm_left_out",
        "new deepseek_v3",
        (
            (
                "latent_attention.LatentAttention.forward",
                "self.kv_a_layernorm(ttnn.slice(kv, (0, 0, 0, 0), (1, 1, rows, self.rank)))",
                "ttnn.slice(kv, (0, 0, 0, 0), (1, 1, rows, self.rank))",
            ),
        ),
        ("self_attn", "self_attn.kv_a_layernorm", K_CACHE),
        r"kv_a_layernorm|norm",
        "the latents are not normed",
    ),
]

EDITS = [*HEADS, *LAYER, *ENDS, *ROTATION, *CACHES, *FORMATS, *MIXTURES, *STATES]

_NORMED = "return ttnn.rms_norm(x, epsilon=self.eps, weight=self.weight, compute_kernel_config=self.compute)"
HARMLESS = [
    Edit(
        "kv_heads_dealt_in_turn",
        "tiny-llama",
        (("parallel.Heads.over", "h, part = divmod(chip, copies)", "part, h = divmod(chip, n_kv_heads)"),),
        system="t3000",
    ),
    Edit(
        "relu_once_in_its_square",
        "tiny-afm",
        (
            ("mlp.Relu2MLP.forward", ', activation="relu"', ""),
            ("mlp.Relu2MLP.forward", "ttnn.mul(up, up)", "ttnn.mul(up, ttnn.relu(up))"),
        ),
    ),
    Edit(
        "positions_from_1_throughout",
        "tiny-mistral",
        (("rope.RopeTables.__init__", "torch.arange(length)", "torch.arange(1, length + 1)"),),
    ),
    Edit(
        "queries_and_keys_negative",
        "qwen3",
        (
            (
                "attention.Attention.turn",
                "return self.q_rope(self.q_norm(q), step), self.k_rope(self.k_norm(k), step)",
                "place = q.memory_config()\n"
                "    q, k = self.q_rope(self.q_norm(q), step), self.k_rope(self.k_norm(k), step)\n"
                "    return ttnn.neg(q, memory_config=q.memory_config()), ttnn.neg(k, memory_config=k.memory_config())",
            ),
        ),
    ),
    Edit(
        "output_in_two_products",
        "tiny-llama",
        (
            (
                "parallel.Mesh.linear_sum",
                "part = ttnn.linear(x, weight, bias=bias if alone else None, **given)",
                "x = ttnn.to_memory_config(x, place)\n"
                "    n = x.shape[-1] // 2\n"
                "    ends = ((0, n), (n, 2 * n))\n"
                "    left, right = (\n"
                "        ttnn.linear(ttnn.slice(x, (0, 0, 0, a), (1, 1, x.shape[-2], b)),\n"
                "                    ttnn.slice(weight, (0, 0, a, 0), (1, 1, b, weight.shape[-1])), **given)\n"
                "        for a, b in ends)\n"
                "    part = ttnn.add(left, right)",
            ),
        ),
    ),
    Edit(
        "norms_in_float32",
        "tiny-allam",
        (
            (
                "norm.RMSNorm.forward",
                _NORMED,
                "wide = ttnn.typecast(x, ttnn.float32)\n"
                "    wide = ttnn.rms_norm(wide, epsilon=self.eps, weight=self.weight, "
                "compute_kernel_config=self.compute)\n    return ttnn.typecast(wide, ttnn.bfloat16)",
            ),
        ),
    ),
    Edit(
        "silu_in_separate_ops",
        "tiny-mistral",
        (
            (
                "mlp.GatedMLP.inner",
                "inner = ttnn.mul(gate, up, input_tensor_a_activations=self.activation)",
                "inner = ttnn.mul(ttnn.mul(gate, ttnn.sigmoid(gate)), up)",
            ),
        ),
    ),
    Edit("paged", "tiny-llama", (), pages=1024, prompt=60),
    Edit("paged_in_chunks", "tiny-mistral", (), pages=64, prompt=100),
    Edit(
        "gathered_and_summed",
        "tiny-mistral",
        (
            (
                "parallel.Mesh.all_reduce",
                "total = ttnn.all_reduce(x)",
                "total = ttnn.sum(ttnn.all_gather(x, dim=0), dim=0, keepdim=True)",
            ),
        ),
        system="n300",
    ),
    Edit(
        "whole_softmax_renormalised",
        "qwen3_moe",
        (
            (
                "router.Router.forward",
                "weight = self._softmax(ttnn.where(chosen, logits, NEVER))",
                "weight = ttnn.where(chosen, self._softmax(logits), 0.0)\n"
                "            weight = ttnn.div(weight, ttnn.sum(weight, dim=-1, keepdim=True))",
            ),
        ),
        system="p300",
    ),
    Edit(
        "unit_length_in_separate_ops",
        "qwen3_5",
        (
            (
                f"{RULE}.heads",
                "ttnn.rms_norm(x, epsilon=EPSILON / self.k_dim, weight=self.unit, "
                "compute_kernel_config=self.norm_compute)",
                "ttnn.mul(x, ttnn.rsqrt(ttnn.add(ttnn.sum(ttnn.mul(x, x), dim=-1, keepdim=True), EPSILON)))",
            ),
        ),
    ),
    Edit(
        "prompt_padded_to_128",
        "tiny-allam",
        (("generate.CausalLM._prompt_row", "round_up(max(map(len, prompts)), TILE)", "128"),),
    ),
    Edit("declared_in_hifi2", "tiny-llama", (), fidelity="HiFi2"),
    Edit(
        "scaled_in_two_steps",
        "gemma3",
        (
            (
                "embedding.Embedding.forward",
                "ttnn.multiply(x, self.scale)",
                "ttnn.multiply(ttnn.multiply(x, self.scale / 2), 2.0)",
            ),
        ),
    ),
]
