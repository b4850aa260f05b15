"""Small HF models with random weights, and how far a device result may be from them."""

import copy
from pathlib import Path

import torch
import ttnn
from transformers import AutoConfig, AutoModelForCausalLM

from bringup.loading import import_file

MODELS = Path(__file__).parents[2] / "models"
# Decode attention of up to 16 query heads a chip takes an approximate exp, whatever is asked for: its output is 2.0e-2
# from fp32 attention (relative rms, ttnn 0.81.1 on the functional simulator). The small models have no more heads.
APPROXIMATE_EXP = 2.2e-2

SYSTEMS = {"n150": (1, 1), "n300": (1, 2), "t3000": (2, 4)}

# Features of the four models at a small size. Odd sizes on purpose: an MLP and a vocabulary that no mesh divides.
SMALL = {
    "num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 336, "vocab_size": 500,
    "max_position_embeddings": 4096, "initializer_range": 0.08, "rms_norm_eps": 1e-5,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 16.0, "original_max_position_embeddings": 256,
    "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
}  # fmt: skip
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
CONFIGS = {
    "Llama-3.2-1B": dict(
        model_type="llama", num_attention_heads=8, num_key_value_heads=2, head_dim=64, tie_word_embeddings=True,
        rope_parameters=LLAMA3),
    "ALLaM-7B-Instruct-preview": dict(
        model_type="llama", num_attention_heads=8, num_key_value_heads=8, head_dim=32, tie_word_embeddings=False,
        rope_parameters=PLAIN),
    "AFM-4.5B": dict(
        model_type="arcee", hidden_size=320, num_attention_heads=10, num_key_value_heads=2, head_dim=32,
        hidden_act="relu2", tie_word_embeddings=False, rope_parameters=YARN),
    "Mistral-7B-Instruct-v0.3": dict(
        model_type="mistral", num_attention_heads=16, num_key_value_heads=8, head_dim=32, sliding_window=None,
        tie_word_embeddings=False, rope_parameters=PLAIN),
}  # fmt: skip


def small_hf_model(name: str, seed: int = 0, **changes):
    """A small random HF model with the features of `name`, in fp32."""
    config = AutoConfig.for_model(**{**SMALL, **CONFIGS[name], **changes})
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def as_stored(hf_model, dtype):
    """The same model with every matrix on the grid of `dtype`: what is left to differ is the computation.

    The token table is bfloat16 on the device; a tied head keeps its own copy in `dtype`, so tie only with bfloat16.
    """
    with torch.no_grad():
        for name, weight in hf_model.named_parameters():
            kind = dtype if weight.dim() == 2 and "embed" not in name else ttnn.bfloat16
            weight.copy_(
                through(weight.T.contiguous(), kind).T if weight.dim() == 2 else through(weight[None], kind)[0]
            )
    return hf_model


def through(x: torch.Tensor, dtype) -> torch.Tensor:
    """x rounded to the grid of `dtype`, along its last dim as on the device."""
    return ttnn.to_torch(ttnn.from_torch(x, dtype=dtype, layout=ttnn.TILE_LAYOUT)).float()


def relative_l2(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape, f"got {list(got.shape)}, want {list(want.shape)}"
    return ((got.double() - want.double()).norm() / want.double().norm()).item()


def as_good_as_bf16(got, want, in_bf16, chips: int = 1, more: float = 0.0) -> bool:
    """Is `got` about as far from HF in fp32 as HF in bfloat16 is? Asserts with the numbers when not.

    The device keeps activations in bfloat16, as HF in bfloat16 does: twice its error, for other orders of rounding and
    for single positions. An all_reduce over n chips rounds n - 1 running sums more, 1.7e-3 each (relative rms). `more`
    is what a named approximation of the device adds.
    """
    error, yardstick = relative_l2(got, want), relative_l2(in_bf16.float(), want)
    bound = 2 * yardstick + 1.7e-3 * (chips - 1) ** 0.5 + more
    assert error < bound, f"relative L2 {error:.2e}, bound {bound:.2e}, of HF in bfloat16 {yardstick:.2e}"
    return True


def in_bf16(module, *args, **kwargs):
    """What an HF module computes with weights and activations in bfloat16."""
    cast = lambda x: x.bfloat16() if isinstance(x, torch.Tensor) and x.is_floating_point() else x  # noqa: E731
    args = [cast(x) for x in args]
    kwargs = {k: tuple(map(cast, v)) if isinstance(v, tuple) else cast(v) for k, v in kwargs.items()}
    return copy.deepcopy(module).bfloat16()(*args, **kwargs)


def pcc(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape, f"got {list(got.shape)}, want {list(want.shape)}"
    return torch.corrcoef(torch.stack([got.flatten().double(), want.flatten().double()]))[0, 1].item()


def load_model_file(name: str):
    """The module of models/<name>/functional/model.py."""
    return import_file(MODELS / name / "functional" / "model.py")
