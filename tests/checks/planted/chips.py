"""A chip's share, and sums over chips."""

import copy
import dataclasses
from types import MethodType

import ttnn

from bringup.blocks.parallel import Heads
from tests.checks.faults import of_hf, of_model, replaced
from tests.checks.planted.core import K, of_layers, planted


@planted("tiny-llama", "mlp", "the chips have each other's share of down_proj", r"down_proj|chip", system="n300")
def down_proj_of_the_other_chip(build):
    def change(layer):
        weight = layer.mlp.down_proj.weight
        weight.copy_(weight.roll(256, 1))

    yield of_hf(build, of_layers(change))


@planted(
    "tiny-mistral",
    "self_attn",
    "its output is reduced over the chips twice: a factor of 2",
    r"twice|all_reduce|2 chips",
    system="n300",
)
def attention_reduced_twice(build):
    def change(model):
        for layer in model.model.layers:
            mesh = copy.copy(model.mesh)
            mesh.all_reduce = lambda x: model.mesh.all_reduce(model.mesh.all_reduce(x))
            layer.self_attn.mesh = mesh

    yield of_model(build, change)


@planted("tiny-mistral", K, "chip 5 has KV head 4 in the place of its own, 5", r"chip 5|KV head", system="t3000")
def one_chip_with_its_neighbours_kv_head(build):
    def make(original):
        def over(chips, n_heads, n_kv_heads):
            heads = original.__func__(Heads, chips, n_heads, n_kv_heads)
            return dataclasses.replace(heads, kv=(*heads.kv[:5], heads.kv[4], *heads.kv[6:]))

        return over

    with replaced(Heads, "over", lambda original: staticmethod(make(original))):
        yield build


@planted(
    "tiny-allam",
    "mlp.residual",
    "the residual is added once on each of the two chips",
    r"residual.*(twice|2)",
    layer=1,
    system="n300",
)
def residual_added_on_every_chip(build):
    def forward(self, x, step):
        x = ttnn.add(x, self.self_attn(self.input_layernorm(x), step))
        return ttnn.add(ttnn.add(x, x), self.mlp(self.post_attention_layernorm(x)))

    def change(model):
        layer = model.model.layers[1]
        layer.forward = MethodType(forward, layer)

    yield of_model(build, change)
