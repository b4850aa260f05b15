"""Norms, MLPs, residuals and the ends of the model; formats."""

from types import MethodType

import ttnn

from bringup.blocks import Embedding, Relu2MLP, RMSNorm
from bringup.blocks.precision import compute_config
from tests.checks.faults import of_hf, of_model, replaced
from tests.checks.planted.core import planted


@planted(
    "tiny-afm",
    "input_layernorm",
    "LayerNorm in the place of RMSNorm: the mean is taken off",
    r"mean|LayerNorm|layer_norm",
)
def layer_norm_for_rms_norm(build):
    def forward(self, x):
        return ttnn.layer_norm(x, epsilon=self.eps, weight=self.weight, compute_kernel_config=self.compute)

    with replaced(RMSNorm, "forward", lambda original: forward):
        yield build


@planted("tiny-llama", "input_layernorm", "1 is added to the norms' weights, as in Gemma", r"1 \+|\+ ?1|Gemma")
def one_added_to_norm_weights(build):
    yield of_hf(build, lambda hf_model: [p.add_(1) for name, p in hf_model.named_parameters() if "norm" in name])


@planted(
    "tiny-llama",
    "embed_tokens",
    "embeddings are multiplied by sqrt(hidden_size) = 13.86",
    r"sqrt\(hidden|hidden_size",
    layer=None,
)
def embeddings_scaled(build):
    def make(original):
        return lambda self, tokens: ttnn.mul(original(self, tokens), 192**0.5)

    with replaced(Embedding, "forward", make):
        yield build


@planted("tiny-afm", "mlp", "ReLU in the place of squared ReLU", r"square|relu", layer=0)
def square_left_out(build):
    def forward(self, x):
        up = ttnn.linear(x, self.up_proj, activation="relu", compute_kernel_config=self.compute)
        return self.mesh.all_reduce(ttnn.linear(up, self.down_proj, compute_kernel_config=self.compute))

    with replaced(Relu2MLP, "forward", lambda original: forward):
        yield build


@planted(
    "tiny-llama",
    ("post_attention_layernorm", "self_attn.residual"),  # what the norm takes
    "it norms the attention's output, without the residual, which the stream has",
    r"post_attention_layernorm|attention's output|the norm ",
)
def norm_before_the_residual(build):
    def forward(self, x, step):
        y = self.self_attn(self.input_layernorm(x), step)
        return ttnn.add(ttnn.add(x, y), self.mlp(self.post_attention_layernorm(y)))

    def change(model):
        for layer in model.model.layers:
            layer.forward = MethodType(forward, layer)

    yield of_model(build, change)


@planted("tiny-afm", "norm", "epsilon is 1e-12, HF's is 1e-5", r"epsilon", layer=None)
def epsilon_of_the_last_norm(build):
    def change(model):
        model.model.norm.eps = 1e-12

    yield of_model(build, change)


@planted("tiny-llama", "mlp", "its products run in LoFi, the file declares HiFi4", r"LoFi|fidelity", layer=1)
def lofi_in_one_mlp(build):
    def change(model):
        model.model.layers[1].mlp.compute = compute_config("LoFi")

    yield of_model(build, change)


@planted("tiny-mistral", "mlp.residual", "the residual stream is rounded to bfloat4_b after layer 0", r"bfloat4_b")
def residual_stream_in_bfloat4_b(build):
    def change(model):
        layer = model.model.layers[0]

        def forward(self, x, step):
            y = type(self).forward(self, x, step)
            return ttnn.typecast(ttnn.typecast(y, ttnn.bfloat4_b), ttnn.bfloat16)

        layer.forward = MethodType(forward, layer)

    yield of_model(build, change)
