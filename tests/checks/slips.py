"""Slips of the hand in a bring-up, written down with their truths before the finder was asked about any of them.

Planted as in `faults`, in model files of several families; where there is no small checkpoint of one, it gets random
weights.
"""

import copy
import dataclasses
import shutil
from contextlib import contextmanager
from pathlib import Path
from types import MethodType

import torch
import ttnn

from bringup.blocks import GatedMLP, weights
from bringup.blocks.attention import NormAfterRotation
from bringup.blocks.cache import RowCache
from bringup.blocks.generate import CausalLM
from bringup.blocks.moe import Experts
from bringup.blocks.norm import CutRMSNorm, HeadNorm
from bringup.blocks.parallel import Mesh
from bringup.blocks.precision import compute_config
from bringup.blocks.rope import Rope, RopeTables, Rotation
from bringup.checkpoints.known import known_config
from bringup.new import small
from tests.checks import faults
from tests.checks.faults import in_place, of_hf, of_model, on_host, replaced
from tests.checks.planted.core import attention_replaced, of_layers

ROOT = Path(__file__).parents[2]
FAMILIES = {
    "qwen3": "Qwen/Qwen3-0.6B",
    "phi3": "microsoft/Phi-4-mini-instruct",
    "gpt_oss": "openai/gpt-oss-20b",
    "olmo2": "allenai/OLMo-2-0425-1B",
    "gemma3": "google/gemma-3-1b-it",
    "smollm3": "HuggingFaceTB/SmolLM3-3B",
}
MODELS = faults.CHECKPOINTS | FAMILIES
Q, K, K_CACHE, V_CACHE = "self_attn.q_rope", "self_attn.k_rope", "self_attn.k_cache", "self_attn.v_cache"
BETWEEN = ("self_attn.residual", "post_attention_layernorm", "mlp")  # where the stream into the MLP shows
SLIPS, HARMLESS = [], []


@dataclasses.dataclass(frozen=True)
class Slip:
    name: str
    plant: object
    model: str  # of MODELS
    system: str
    points: tuple[str, ...]  # where it may be found
    phase: str | None
    cause: str
    named: str  # a pattern of the reasons that name it
    user: int = 0  # of a batch, who sees it
    prompt: int = 45  # tokens of a prompt that shows it


def slip(model, points, cause, named, phase="prefill", layer=0, system="n150", **seen):
    points = (points,) if isinstance(points, str) else points
    points = points if layer is None else tuple(f"layer {layer}, {point}" for point in points)

    def register(plant):
        SLIPS.append(Slip(plant.__name__, contextmanager(plant), model, system, points, phase, cause, named, **seen))
        return plant

    return register


def harmless(model, system="n150"):
    def register(plant):
        HARMLESS.append(Slip(plant.__name__, contextmanager(plant), model, system, (), None, "", ""))
        return plant

    return register


def checkpoint(model, into):
    """A folder with a checkpoint: a stored one, or one of random weights with a tokenizer of its size."""
    if model in faults.CHECKPOINTS:
        return ROOT / "checkpoints" / model
    path = into / model
    if not path.exists():
        config = known_config(FAMILIES[model])
        fields = small.fields(config, small.layers(config)) | {"vocab_size": 1024}
        small.hf_model(fields).bfloat16().save_pretrained(path)
        for file in (ROOT / "checkpoints" / "tiny-mistral").glob("tokenizer*"):
            shutil.copy(file, path)
    return path


def model_file(model, system):
    return ROOT / "models" / MODELS[model] / system / "functional" / "model.py"


def each_attention(change):
    return lambda model: [change(layer.self_attn) for layer in model.model.layers]


# -- norms of heads ---------------------------------------------------------------------------------------------------


@slip("qwen3", K, "k_norm has the weight of q_norm", r"q_norm")
def queries_norm_for_keys(build):
    yield of_hf(build, of_layers(lambda l: l.self_attn.k_norm.weight.copy_(l.self_attn.q_norm.weight)))


@slip("qwen3", Q, "q and k are normed after their rotation", r"runs after the rotation")
def heads_normed_after_rotation(build):
    yield of_model(build, each_attention(lambda a: setattr(a, "turn", MethodType(NormAfterRotation.turn, a))))


@slip(
    "qwen3",
    Q,
    "q and k are normed over all heads together, not each on its own",
    r"all heads|over heads|heads together",
)
def heads_normed_together(build):
    def forward(self, x):
        dims, place = ((2, 3) if x.is_sharded() else (1, 3)), x.memory_config()
        mean = on_host(
            ttnn.to_memory_config(x, ttnn.DRAM_MEMORY_CONFIG),
            lambda v: (v.float() / (v.float().square().mean(dims, keepdim=True) + self.eps).sqrt()).bfloat16(),
        )
        return ttnn.to_memory_config(ttnn.mul(mean, self.weight), place)

    yield from in_place(build, HeadNorm, forward=forward)


@slip("olmo2", Q, "each chip norms its own share of the heads: squares are not gathered", r"share|chip", system="n300")
def norm_of_own_heads(build):
    def forward(self, x):
        return ttnn.rms_norm(x, epsilon=self.eps, weight=self.weight, compute_kernel_config=self.compute)

    yield from in_place(build, CutRMSNorm, forward=forward)


# -- weights ----------------------------------------------------------------------------------------------------------


@slip(
    "phi3",
    "mlp",
    "gate and up are taken as even and odd rows of gate_up_proj",
    r"interleav|one of every 2 taken in turn",
)
def fused_rows_taken_in_turn(build):
    def change(layer):
        w = layer.mlp.gate_up_proj.weight
        w.copy_(torch.cat((w[0::2], w[1::2])))

    yield of_hf(build, of_layers(change))


@slip("tiny-llama", Q, "q, k and v are concatenated by KV group, and cut as q, k, v", r"group|k_proj|fused|concatenat")
def qkv_concatenated_by_group(build):
    def change(layer):
        a = layer.self_attn
        q, k, v = (p.weight.unflatten(0, (2, -1)) for p in (a.q_proj, a.k_proj, a.v_proj))
        fused = torch.cat((q, k, v), 1).flatten(0, 1)
        sizes = [len(p.weight) for p in (a.q_proj, a.k_proj, a.v_proj)]
        for p, rows in zip((a.q_proj, a.k_proj, a.v_proj), fused.split(sizes), strict=True):
            p.weight.copy_(rows)

    yield of_hf(build, of_layers(change))


@slip(
    "tiny-mistral",
    "mlp",
    "chip 1 has chip 0's share of up_proj",
    r"(chip 0's share of|share 0 of) mlp.up_proj",
    system="n300",
)
def one_share_of_up_on_both_chips(build):
    def change(layer):
        w = layer.mlp.up_proj.weight
        w[len(w) // 2 :] = w[: len(w) // 2].clone()

    yield of_hf(build, of_layers(change))


@slip("tiny-mistral", "lm_head", "the head is the token table, HF's is not tied", r"embed_tokens|tied", layer=None)
def head_tied(build):
    yield of_hf(build, lambda hf: hf.lm_head.weight.copy_(hf.model.embed_tokens.weight))


@slip(
    "tiny-afm",
    "mlp",
    "the last 32 columns of the hidden state are left out",
    r"block 7 \(of 8\) of 32 columns.* missing",
    layer=1,
)
def last_tile_of_the_hidden_state_cut_off(build):
    yield of_hf(build, lambda hf: hf.model.layers[1].mlp.down_proj.weight[:, -32:].zero_())


# -- constants --------------------------------------------------------------------------------------------------------


@slip("gpt_oss", "mlp", "sigmoid(gate) in the place of sigmoid(1.702 gate)", r"alpha|1\.702", system="p150")
def plain_silu_in_experts(build):
    yield of_model(build, lambda m: [setattr(layer.mlp.experts, "alpha", 1.0) for layer in m.model.layers])


@slip(
    "gpt_oss",
    "self_attn",
    "the sinks are not divided by the scale, which the library multiplies by",
    r"sink",
    system="p150",
)
def sinks_scaled(build):
    with replaced(weights, "sinks", lambda o: lambda values, heads, scale, mesh: o(values, heads, 1.0, mesh)):
        yield build


@slip(
    "gpt_oss",
    "self_attn",
    "o_proj's bias is added on each of 2 chips, and summed",
    r"bias.*(twice|on each of)",
    system="p300",
)
def bias_on_every_chip(build):
    def linear_sum(self, x, weight, bias, compute):
        part = ttnn.linear(
            x,
            weight,
            bias=bias,
            memory_config=ttnn.L1_MEMORY_CONFIG if x.is_sharded() else x.memory_config(),
            compute_kernel_config=compute,
        )
        return self.all_reduce(part)

    yield from in_place(build, Mesh, linear_sum=linear_sum)


@slip(
    "gemma3",
    "embed_tokens",
    "the embeddings are scaled by hidden_size, not its root",
    r"times 16 \(sqrt\(hidden_size\)\)",
    layer=None,
)
def embeddings_scaled_twice(build):
    yield of_model(build, lambda m: setattr(m.model.embed_tokens, "scale", m.model.embed_tokens.scale**2))


# -- the layer --------------------------------------------------------------------------------------------------------


@slip("tiny-llama", BETWEEN, "attention and MLP are parallel: the MLP takes the layer's input", r"side by side")
def mlp_beside_attention(build):
    def beside(self, x, step):
        attended = self.self_attn(self.input_layernorm(x), step)
        return ttnn.add(ttnn.add(x, attended), self.mlp(self.post_attention_layernorm(x)))

    yield of_model(build, of_layers(lambda layer: setattr(layer, "forward", MethodType(beside, layer))))


@slip("tiny-allam", "mlp", "hardswish in the place of silu", r"hard")
def hard_silu(build):
    def inner(self, x):
        gate, up = self.linear(x, self.gate_proj, None), self.linear(x, self.up_proj, None)
        hard = ttnn.clamp(ttnn.add(ttnn.mul(gate, 1 / 6), 0.5), min=0.0, max=1.0)
        return ttnn.mul(ttnn.mul(gate, hard), up)

    yield from in_place(build, GatedMLP, inner=inner)


@slip(
    "tiny-afm",
    "self_attn",
    "in decode o_proj's products are not summed over the chips",
    r"chips hold different|not summed|all_reduce",
    phase="decode",
    system="n300",
)
def no_sum_over_chips_in_decode(build):
    def change(attention):
        mesh = attention.mesh = copy.copy(attention.mesh)

        def linear_sum(x, weight, bias, compute):
            if x.is_sharded():
                return ttnn.linear(x, weight, memory_config=ttnn.L1_MEMORY_CONFIG, compute_kernel_config=compute)
            return Mesh.linear_sum(mesh, x, weight, bias, compute)

        mesh.linear_sum = linear_sum

    yield of_model(build, each_attention(change))


# -- rotations --------------------------------------------------------------------------------------------------------


@slip("tiny-mistral", Q, "cos and sin are exchanged", r"cos.*sin|sin.*cos")
def cos_and_sin_exchanged(build):
    def change(model):
        model.rope.prompt.reverse()
        model.rope.by_position.reverse()

    yield of_model(build, change)


@slip("phi3", Q, "the last three quarters of a head turn, HF turns the first", r"dims 8 to 31")
def last_dims_turned(build):
    def order(self, head_dim):
        turned = int(head_dim * self.part)
        still = torch.arange(head_dim - turned).view(2, -1)
        pairs = torch.arange(head_dim - turned, head_dim).view(2, -1)
        return tuple(torch.cat((pairs[0], still[0], pairs[1], still[1])).tolist())

    yield from in_place(build, Rotation, order=order)


@slip("tiny-allam", V_CACHE, "the values are rotated as the keys are", r"rotat")
def values_rotated(build):
    def prefill(self, qkv, step):
        q, k, v = ttnn.experimental.nlp_create_qkv_heads(
            qkv, num_heads=self.heads.n_query, num_kv_heads=self.heads.n_kv, transpose_k_heads=False
        )
        q, k = self.turn(q, k, step)
        v = Rope()(v, step)
        self.cache.fill(k, v, step)
        return ttnn.experimental.nlp_concat_heads(self.attend_prompt(q, k, v, step))

    def decode(self, qkv, step):
        q, k, v = ttnn.experimental.nlp_create_qkv_heads_decode(
            qkv, num_heads=self.heads.n_query, num_kv_heads=self.heads.n_kv
        )
        q, k = self.turn(q, k, step)
        v = Rope()(v, step)
        self.cache.update(k, v, step)
        attended = ttnn.to_memory_config(self.attend(q, step), self.one_user_a_core)
        return ttnn.experimental.nlp_concat_heads_decode(
            attended, num_heads=self.heads.n_query, sub_core_grids=self.mesh.cores
        )

    def change(attention):
        attention.prefill, attention.decode = MethodType(prefill, attention), MethodType(decode, attention)

    yield of_model(build, each_attention(change))


@slip(
    "tiny-mistral",
    Q,
    "the table of steps ends at 64: later positions take its last row",
    r"table of 64",
    phase="decode",
    prompt=66,
)
def table_of_steps_too_short(build):
    with replaced(RopeTables, "look_up", lambda o: lambda self, at: o(self, on_host(at, lambda x: x.clamp(max=63)))):
        yield build


# -- cache, attention, users ------------------------------------------------------------------------------------------


@slip("tiny-llama", V_CACHE, "steps write zeros for the values of head 1", r"head 1|heads? .*(zero|0)", phase="decode")
def values_of_head_1_not_written(build):
    def zeroed(x):
        x = x.clone()
        x[:, :, 1:] = 0
        return x

    with replaced(RowCache, "update", lambda o: lambda self, k, v, step: o(self, k, on_host(v, zeroed), step)):
        yield build


@slip("tiny-llama", K_CACHE, "steps round keys to bfloat8_b before they are written", r"bfloat8_b", phase="decode")
def keys_of_steps_in_bfloat8_b(build):
    def rounded(x):
        return ttnn.to_torch(ttnn.from_torch(x, dtype=ttnn.bfloat8_b, layout=ttnn.TILE_LAYOUT))

    with replaced(RowCache, "update", lambda o: lambda self, k, v, step: o(self, on_host(k, rounded), v, step)):
        yield build


@slip("tiny-mistral", "self_attn", "a prompt attends in blocks of 32 that do not see each other", r"block|tile|32")
def blocks_blind_to_each_other(build):
    def make(original):
        def attend(q, k, v, **kwargs):
            cut = lambda x, i: ttnn.slice(x, (0, 0, i, 0), (*tuple(x.shape)[:2], i + 32, x.shape[-1]))  # noqa: E731
            kwargs["program_config"] = ttnn.SDPAProgramConfig(
                compute_with_storage_grid_size=(8, 8), q_chunk_size=32, k_chunk_size=32, exp_approx_mode=False
            )
            pieces = [original(*(cut(x, i) for x in (q, k, v)), **kwargs) for i in range(0, q.shape[-2], 32)]
            return ttnn.concat(pieces, dim=2) if len(pieces) > 1 else pieces[0]

        return attend

    with replaced(ttnn.transformer, "scaled_dot_product_attention", make):
        yield build


@slip(
    "tiny-llama",
    "self_attn",
    "attention has no compute config: the library's default fidelity and destination",
    r"HiFi2|fidelity|compute",
    phase=None,
)
def attention_without_compute_config(build):
    with attention_replaced(lambda o: lambda *args, compute_kernel_config, **kwargs: o(*args, **kwargs)):
        yield build


@slip(
    "tiny-mistral",
    "embed_tokens",
    "in a step users get each other's tokens",
    r"token of another user",
    phase="decode",
    layer=None,
    user=1,
)
def tokens_of_the_next_user(build):
    def make(original):
        def inputs(self, tokens, positions):
            rows, tokens = list(positions), list(tokens)
            for row, other in zip(rows, [*rows[1:], *rows[:1]], strict=True):
                tokens[row] = original_tokens[other] if (original_tokens := tokens_of[0]) else 0
            return original(self, tokens, positions)

        tokens_of = [None]

        def kept(self, tokens, positions):
            tokens_of[0] = list(tokens)
            return inputs(self, tokens, positions)

        return kept

    with replaced(CausalLM, "_host_inputs", make):
        yield build


# -- a second lot, written when the first was mended ------------------------------------------------------------------


@slip("gemma3", "self_attn", "steps have no window, HF's layer has one of 16", r"window of 16", phase="decode")
def no_window_in_steps(build):
    def make(original):
        return lambda *args, sliding_window_size=None, **kwargs: original(*args, **kwargs)

    with replaced(ttnn.transformer, "scaled_dot_product_attention_decode", make):
        yield build


@slip(
    "gemma3",
    "pre_feedforward_layernorm",
    "it has the weight of post_feedforward_layernorm",
    r"post_feedforward_layernorm",
)
def norm_of_the_other_side(build):
    yield of_hf(
        build, of_layers(lambda l: l.pre_feedforward_layernorm.weight.copy_(l.post_feedforward_layernorm.weight))
    )


@slip("gemma3", Q, "q_norm multiplies by its weight, not 1 + weight", r"where HF has 1 \+ weight")
def head_norm_without_offset(build):
    def change(attention):
        for norm in (attention.q_norm, attention.k_norm):
            norm.weight = ttnn.subtract(norm.weight, 1.0)

    yield of_model(build, each_attention(change))


@slip("phi3", "self_attn", "the scale is that of the 24 dims that turn, heads are of 32", r"has the scale 0\.2041")
def scale_of_the_turned_part(build):
    yield of_model(build, each_attention(lambda a: a.sdpa.update(scale=24**-0.5)))


@slip(
    "gpt_oss",
    "mlp",
    "rows are weighed before the experts, not after",
    r"factor of .*weighted_out.* not there",
    system="p150",
)
def weighed_before_the_experts(build):
    def of(self, x, weight):
        chosen = ttnn.to_layout(ttnn.max(weight, dim=2, keepdim=True), ttnn.ROW_MAJOR_LAYOUT)
        by_expert = ttnn.permute(weight, (0, 3, 2, 1))
        x = ttnn.mul(ttnn.repeat(x, (1, self.count, 1, 1)), by_expert)
        gate, up = (self.product(x, w, chosen) for w in (self.gate_proj, self.up_proj))
        out = self.down(self.inner(gate, up), chosen)
        kept = ttnn.where(by_expert, out, 0.0)
        return ttnn.experimental.fast_reduce_nc(kept, dims=[1], compute_kernel_config=self.compute)

    yield from in_place(build, Experts, _of=of)


@slip(
    "gpt_oss",
    "mlp",
    "the biases of down_proj are added after the weighing",
    r"factor of .*weighted_out.* not there",
    system="p150",
)
def biases_not_weighed(build):
    def change(layer):
        experts = layer.mlp.experts
        bias = ttnn.permute(experts.down_bias, (0, 2, 1, 3))  # [1, 1, experts, hidden]
        experts.down = MethodType(lambda self, inner, chosen: Experts.down(self, inner, chosen), experts)
        experts._of = MethodType(with_bias(bias), experts)

    def with_bias(bias):
        def of(self, x, weight):
            total = Experts._of(self, x, weight)
            chosen = ttnn.typecast(ttnn.gt(weight, 0.0), ttnn.bfloat16)
            return ttnn.add(total, ttnn.matmul(chosen, bias, compute_kernel_config=self.compute))

        return of

    yield of_model(build, of_layers(change))


@slip("tiny-allam", V_CACHE, "chip 1 has chip 0's heads of v", r"chip 1|heads? .*(0|4)|share", system="n300")
def one_share_of_v_on_both_chips(build):
    def change(layer):
        w = layer.self_attn.v_proj.weight
        w[len(w) // 2 :] = w[: len(w) // 2].clone()

    yield of_hf(build, of_layers(change))


@slip("tiny-llama", Q, "steps rotate q twice", r"twice|2 p", phase="decode")
def queries_rotated_twice_in_steps(build):
    def forward(self, x, step):
        once = Rope.forward(self, x, step)
        return Rope.forward(self, once, step) if step.is_decode else once

    yield of_model(build, each_attention(lambda a: setattr(a.q_rope, "forward", MethodType(forward, a.q_rope))))


@slip(
    "tiny-mistral",
    "self_attn",
    "2 ** scores in the softmax: the scale is ln 2 times HF's",
    r"scaled by 0\.122\d, where",
)
def softmax_to_base_two(build):
    yield of_model(build, each_attention(lambda a: a.sdpa.update(scale=a.head_dim**-0.5 * 0.6931)))


@slip("smollm3", Q, "the layers without rotation are counted from 0: layer 0 has none", r"without rotation", layer=0)
def no_rotation_in_the_wrong_layers(build):
    def change(model):
        ropes = [(layer.self_attn.q_rope, layer.self_attn.k_rope) for layer in model.model.layers]
        for layer, (q, k) in zip(model.model.layers, [ropes[-1], *ropes[:-1]], strict=True):
            layer.self_attn.q_rope, layer.self_attn.k_rope = q, k

    yield of_model(build, change)


@slip(
    "tiny-allam",
    "mlp",
    "up takes the residual stream, gate its norm",
    r"self_attn.residual for what is taken in mlp.up_proj",
)
def up_of_the_stream(build):
    def forward(self, x, step):
        x = ttnn.add(x, self.self_attn(self.input_layernorm(x), step))
        self.mlp.stream = x
        return ttnn.add(x, self.mlp(self.post_attention_layernorm(x)))

    def inner(self, x):
        gate, up = self.linear(x, self.gate_proj, None), self.linear(self.stream, self.up_proj, None)
        return ttnn.mul(gate, up, input_tensor_a_activations=self.activation)

    def change(model):
        for layer in model.model.layers:
            layer.forward = MethodType(forward, layer)

    with replaced(GatedMLP, "inner", lambda original: inner):
        yield of_model(build, change)


@slip("tiny-llama", "embed_tokens", "the token table was rounded to bfloat8_b", r"bfloat8_b", layer=None)
def token_table_in_bfloat8_b(build):
    def change(model):
        table = model.model.embed_tokens
        coarse = ttnn.typecast(ttnn.to_layout(table.weight, ttnn.TILE_LAYOUT), ttnn.bfloat8_b)
        table.weight = ttnn.to_layout(ttnn.typecast(coarse, ttnn.bfloat16), ttnn.ROW_MAJOR_LAYOUT)

    yield of_model(build, change)


@slip("tiny-mistral", "mlp", "the sum over 2 chips is their mean", r"1 / the number of chips, 2", system="n300")
def mean_over_chips(build):
    def change(model):
        for layer in model.model.layers:
            mesh = layer.mlp.mesh = copy.copy(layer.mlp.mesh)
            mesh.all_reduce = lambda x, mesh=mesh: ttnn.mul(Mesh.all_reduce(mesh, x), 0.5)

    yield of_model(build, change)


@slip(
    "tiny-mistral",
    "self_attn",
    "two faults at once: no scale, and head 5 is missing from the sum",
    r"has the scale 1, HF",
)
def no_scale_and_a_missing_head(build):
    def change(layer):
        layer.self_attn.o_proj.weight[:, 5 * 32 : 6 * 32] = 0

    with attention_replaced(lambda o: lambda *args, **kwargs: o(*args, **{**kwargs, "scale": 1.0})):
        yield of_hf(build, of_layers(change))


@slip("qwen3", "mlp", "SiLU is applied to the product of gate and up too", r"silu once more")
def activation_after_the_product_too(build):
    def inner(self, x):
        gate, up = self.linear(x, self.gate_proj, None), self.linear(x, self.up_proj, None)
        return ttnn.silu(ttnn.mul(ttnn.silu(gate), up))

    yield from in_place(build, GatedMLP, inner=inner)


@slip(
    "qwen3",
    ("self_attn.residual", "self_attn"),
    "attention's output is doubled at every second position",
    r"twice.*in positions 1, 3",
)
def every_second_row_twice(build):
    def forward(self, x, step):
        y = self.self_attn(self.input_layernorm(x), step)
        odd = on_host(y, lambda v: v * (1 + torch.arange(v.shape[-2]) % 2)[:, None].to(v.dtype))
        x = ttnn.add(x, odd)
        return ttnn.add(x, self.mlp(self.post_attention_layernorm(x)))

    yield of_model(build, lambda m: [setattr(layer, "forward", MethodType(forward, layer)) for layer in m.model.layers])


# -- families whose rotations no mechanism could read ------------------------------------------------------------------


@slip("gemma3", Q, "steps rotate for the next position", r"for position p \+1", phase="decode")
def next_position_in_steps(build):
    with replaced(RopeTables, "look_up", lambda o: lambda self, at: o(self, on_host(at, lambda x: x + 1))):
        yield build


@slip("gpt_oss", Q, "the sine has the wrong sign", r"backwards", system="p150")
def rotated_backwards(build):
    def change(model):
        for tables in (model.rope.prompt, model.rope.by_position):
            tables[1] = ttnn.neg(tables[1])

    yield of_model(build, change)


# -- harmless ---------------------------------------------------------------------------------------------------------


@harmless("tiny-llama")
def hidden_state_in_float32(build):
    def inner(self, x):
        gate, up = (self.linear(x, w, None, dtype=ttnn.float32) for w in (self.gate_proj, self.up_proj))
        return ttnn.typecast(ttnn.mul(ttnn.silu(gate), up), ttnn.bfloat16)

    yield from in_place(build, GatedMLP, inner=inner)


@harmless("qwen3")
def queries_twice_as_large_at_half_the_scale(build):
    def change(attention):
        attention.q_norm.weight = ttnn.mul(attention.q_norm.weight, 2.0)
        attention.sdpa["scale"] = attention.head_dim**-0.5 / 2

    yield of_model(build, each_attention(change))


@harmless("tiny-allam")
def gate_and_up_exchanged_in_name_and_use(build):
    def change(model):
        for layer in model.model.layers:
            layer.mlp.gate_proj, layer.mlp.up_proj = layer.mlp.up_proj, layer.mlp.gate_proj

    def inner(self, x):
        gate, up = self.linear(x, self.gate_proj, None), self.linear(x, self.up_proj, None)
        return ttnn.mul(gate, up, input_tensor_b_activations=self.activation)

    with replaced(GatedMLP, "inner", lambda original: inner):
        yield of_model(build, change)


@harmless("gemma3")
def scale_in_the_token_table(build):
    def change(model):
        table = model.model.embed_tokens
        table.weight, table.scale = ttnn.mul(ttnn.to_layout(table.weight, ttnn.TILE_LAYOUT), table.scale), None
        table.weight = ttnn.to_layout(table.weight, ttnn.ROW_MAJOR_LAYOUT)

    yield of_model(build, change)


@harmless("tiny-mistral")
def hidden_columns_in_another_order(build):
    def change(layer):
        mlp = layer.mlp
        order = torch.randperm(mlp.up_proj.out_features, generator=torch.Generator().manual_seed(0))
        for p in (mlp.gate_proj, mlp.up_proj):
            p.weight.copy_(p.weight[order])
        mlp.down_proj.weight.copy_(mlp.down_proj.weight[:, order])

    yield of_hf(build, of_layers(change))


@harmless("tiny-mistral", system="n300")
def heads_gathered_and_output_weight_whole(build):
    def with_whole(hf_model, device, max_seq_len):
        model = build(hf_model, device, max_seq_len)
        for layer, theirs in zip(model.model.layers, hf_model.model.layers, strict=True):
            attention = layer.self_attn
            attention.o_proj = weights.replicated(theirs.self_attn.o_proj.weight, model.mesh, ttnn.bfloat8_b)
            attention.output = MethodType(output, attention)
        return model

    def output(self, heads):
        if heads.is_sharded():
            heads = ttnn.to_memory_config(heads, ttnn.L1_MEMORY_CONFIG)
        return ttnn.linear(ttnn.all_gather(heads, dim=3), self.o_proj, compute_kernel_config=self.compute)

    yield with_whole


@harmless("tiny-afm")
def residual_in_float32(build):
    def forward(self, x, step):
        x = ttnn.add(x, self.self_attn(self.input_layernorm(x), step), dtype=ttnn.float32)
        narrow = ttnn.typecast(x, ttnn.bfloat16)
        return ttnn.typecast(ttnn.add(x, self.mlp(self.post_attention_layernorm(narrow))), ttnn.bfloat16)

    yield of_model(build, lambda m: [setattr(layer, "forward", MethodType(forward, layer)) for layer in m.model.layers])


@harmless("gemma3")
def exact_gelu(build):
    yield of_model(
        build,
        lambda m: [
            setattr(layer.mlp, "activation", [ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU, 0.0)])
            for layer in m.model.layers
        ],
    )


@harmless("tiny-llama")
def products_in_hifi4(build):
    def change(model):
        for module in model.modules():
            if hasattr(module, "compute"):
                module.compute = compute_config("HiFi4")

    yield of_model(build, change)
