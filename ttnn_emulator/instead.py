"""What a name of the library that has no model here is for, and what to use in its place."""

from __future__ import annotations

import re

from .errors import NotEmulated

#: Part of a name -> what it is, what does its work here. The first that is found in a name speaks.
INSTEAD = {
    r"_bw$|_bw_t$|backward|moreh_|_loss$|LossReduction": "it is of training, and the emulator runs inference",
    r"conv|[Pp]ool|upsample|grid_sample|group_norm|batch_norm|^fold$|rotate$|Slic(e|ing)|Op2D|rgb|RGB|yuv"
    r"|YUV|intimg|halo|sliding_window|SlidingWindow|deformable|msda|segformer|vit$|boltz|dit_|wan_":
        "it is of image models",
    r"matmul_reduce_scatter|llama_rs_matmul|minimal_matmul_strided":
        "use ttnn.linear and then ttnn.reduce_scatter",
    r"all_gather_minimal_matmul|llama_all_gather_matmul|strided_all_gather":
        "use ttnn.experimental.all_gather_async and then ttnn.experimental.minimal_matmul, or "
        "all_gather_matmul_async",
    r"llama_reduce_scatter|llama_rs_create_heads|reduce_scatter_minimal_direct|strided_reduce_scatter"
    r"|moe_reduce_scatter|reduce_to_root":
        "use ttnn.reduce_scatter and ttnn.experimental.reduce_scatter_minimal_async",
    r"all_gather_concat|high_bw_all_gather|all_gather_async_reversed|ring_attention_all_gather"
    r"|slice_reshard|neighbor_pad": "use ttnn.all_gather and ttnn.experimental.all_gather_async",
    r"all_reduce_create_qkv_heads":
        "use ttnn.all_reduce and then ttnn.experimental.nlp_create_qkv_heads_decode",
    r"all_to_all_async|all_to_all_dispatch_metadata": "use ttnn.all_to_all_dispatch and all_to_all_combine",
    r"fused_rms_minimal|rms_norm.*fused|fused_rmsnorm":
        "use ttnn.rms_norm_pre_all_gather, all_gather and rms_norm_post_all_gather",
    r"[Ss]ocket|send_|recv_|[HD]2[HD]|D2D|stream_service|StreamService|LayerAck|layer_completion"
    r"|LayerCompletion|InterProcess|disaggregation":
        "no programs talk over sockets here; one process holds the whole mesh",
    r"distributed_context|subcontext|world_rank|Subcontext":
        "one process holds the whole mesh; it is rank 0 of 1",
    r"[Pp]refetch|global_circular_buffer|GlobalCircular|global_cb":
        "weights are read without it: leave out global_cb= and the prefetcher's cores",
    r"ring_mla|_mla":
        "use ttnn.transformer.flash_mla_prefill and flash_multi_latent_attention_decode",
    r"ring_joint|ring_distributed|joint_scaled|sparse_sdpa|attn_res|indexer":
        "use ttnn.transformer.scaled_dot_product_attention and its chunked and windowed forms",
    r"gated_delta_attn_seq|affine|recurrence|recurrent_chunk|chunk_gdn|ChunkGdn|prefix_scan|carry":
        "use ttnn.transformer.chunk_gated_delta_rule and fused_recurrent_gated_delta_rule",
    r"moe_compute|moe_gpt|moe_gate|moe_gate_mm|grouped_gate|grouped_topk|routed_expert|moe_fused|moe_hash"
    r"|moe_routing|hybrid_routed|combine|dispatch|W0_W1|W2_|w0_w1|w2_|get_moe|shared_expert|TXN"
    r"|BLOCK_TILES":
        "experts can be made of ttnn.topk, ttnn.sparse_matmul, all_to_all_dispatch, all_to_all_combine and "
        "moe_expert_token_remap",
    r"create_qkv_heads|q_heads": "use ttnn.experimental.nlp_create_qkv_heads and its decode form",
    r"kv_cache|update_cache|attn_matmul_from_cache":
        "use ttnn.fill_cache, ttnn.update_cache and ttnn.experimental.paged_update_cache",
    r"rotary": "use ttnn.experimental.rotary_embedding, _hf, _llama and _llama_fused_qk",
    r"quantize|fp8|bfp|tilize_and_pack":
        "use bfloat8_b and bfloat4_b, which ttnn.typecast and ttnn.from_torch make",
    r"complex|^(real|imag|conj|angle|polar)|is_(real|imag)":
        "the real and the imaginary part can be two tensors",
    r"[Pp]rogram_?[Dd]escriptor|generic_op|Kernel|CBDescriptor|CBFormat|RuntimeArgs|Semaphore.*Descriptor"
    r"|TensorAccessor|cb_|CBIndex|TileDescriptor|[Mm]cast|program_descriptor|FaceGeometry":
        "kernels of one's own do not run here",
    r"fft|bluestein|twiddle": "it is of signal processing",
    r"graph|Graph|trac(er|ing)|Trac|_io_record|stack_trace|report|operation_tracer|serializ|visualize"
    r"|golden|_hook|dump_operations|comp_pcc|comp_ulp|comparison":
        "`bringup run --log ops.json` and `with ttnn_emulator.record() as log` have every call with its "
        "operands",
    r"light_metal|LightMetal": "use ttnn.begin_trace_capture and execute_trace",
    r"perf_data|ProgramRealtimeProfiler|kernel_duration":
        "there is no profiler to read: `bringup run --log` predicts times",
    r"interleaved_to_sharded_partial|sharded_to_interleaved_partial":
        "use ttnn.slice and ttnn.interleaved_to_sharded",
    r"NdShardSpec|ND_SHARDED|sharded_across":
        "use shards of two dims: ttnn.ShardSpec, ttnn.create_sharded_memory_config",
    r"(height|width|block)_sharded|^sharded$":
        "use ttnn.create_sharded_memory_config for the memory config of a TensorSpec",
    r"worker_core|logical_core|dram_core|fabric_node|read_reg|read_from_core|write_to_core|dram_bank"
    r"|core_l1|eth_": "where a chip's cores stand on its silicon is not known here",
    r"transpose_rm|fill_rm|fill_ones_rm|padded_slice|slice_write|indexed_fill|tosa_|bcast$":
        "use ttnn.transpose, ttnn.full, ttnn.slice, ttnn.scatter, ttnn.gather and the arithmetic ops, which "
        "broadcast",
    r"^(var|std|normalize)_(hw|global)$": "use ttnn.mean, ttnn.var, ttnn.std and the arithmetic ops",
    r"^(gcd|lcm|nextafter|polygamma|multigammaln)$|correlation|composite_example|test_hang":
        "no language model needs it: torch on the host has it",
    r"matmul_batched_weights": "use ttnn.matmul, weight by weight",
    r"matmul_decode": "use ttnn.linear",
    r"deepseek_moe_fast_reduce_nc_fused|fast_reduce_nc_split":
        "use ttnn.experimental.deepseek_moe_fast_reduce_nc and fast_reduce_nc",
    r"repeat_and_interleave_eltwise_mul": "use ttnn.repeat, ttnn.repeat_interleave and ttnn.multiply",
    r"topk_large_indices": "use ttnn.topk",
    r"create_intermediate_buffer": "use ttnn.empty: a buffer of the spec that the op asks for",
    r"index_fill_new": "use ttnn.index_fill",
    r"snake_beta": "x + sin(alpha x)^2 / beta can be made of ttnn.sin, ttnn.square and the arithmetic ops",
    r"copy_host_to_device_tensor_partial": "use ttnn.copy_host_to_device_tensor, which writes all shards",
    r"slow_dispatch|fast_dispatch|CreateDevice|CloseDevice|SetRootDir":
        "use ttnn.open_mesh_device and close_mesh_device",
    r"_config_(from|to)|CONFIG": "use ttnn.CONFIG, which is in memory only",
}  # fmt: skip
_FOUND = [(re.compile(part), words) for part, words in INSTEAD.items()]

#: What objects of the library have that ours do not.
MEMBERS = {
    "MeshDevice": "dram_core_from_logical_core get_optimal_dram_bank_to_logical_worker_assignment",
    "MemoryConfig": "experimental_set_per_core_allocation experimental_set_range_lockstep_allocation",
    "Tensor": "buffer_unique_id experimental_per_core_buffer_address extract_shard host_buffer "
        "is_per_core_allocated is_range_lockstep_allocated update_tensor_topology",
    "TensorSpec": "block_sharded height_sharded sharded sharded_across_dims sharded_across_dims_except width_sharded",
    "MatmulMultiCoreReuseMultiCast1DProgramConfig": "to_json from_json",
    "MatmulMultiCoreReuseMultiCastProgramConfig": "to_json from_json",
    "MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig": "to_json from_json",
    "MatmulMultiCoreReuseProgramConfig": "to_json from_json",
}  # fmt: skip
_OF_MEMBERS = {
    "to_json": "the fields of the config can be written one by one",
    "host_buffer": "ttnn.to_torch gives the values",
    "extract_shard": "use ttnn.sharded_to_interleaved and ttnn.slice",
    "update_tensor_topology": "ttnn.from_torch with a mesh mapper places a tensor anew",
}


def instead(name: str, namespace: str = "") -> str:
    """Words on a name without a model, or none."""
    return next((f": {words}" for of in (name, namespace) for part, words in _FOUND if part.search(of)), "")


class Unmodelled:
    """An attribute that the library's objects of a class have."""

    def __init__(self, owner: str, name: str):
        self.words = f"ttnn.{owner}.{name} has no model in the emulator"
        self.words += f": {_OF_MEMBERS[name]}" if name in _OF_MEMBERS else instead(name)

    def __get__(self, obj, owner=None):
        raise NotEmulated(self.words)


def hang(root) -> None:
    """Gives our classes the library's other attributes: they answer with what to use instead."""
    for owner, names in MEMBERS.items():
        for name in names.split():
            setattr(getattr(root, owner), name, Unmodelled(owner, name))
