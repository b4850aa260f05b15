"""topk_router_gpt: the weights of the experts that it names, and that no other has more."""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

X, W, B = T((32, 96)), T((96, 128)), T((32, 128))
RM = ttnn.ROW_MAJOR_LAYOUT


def apart(tokens, hidden):
    """Operands whose scores are whole numbers that differ: 0 to 127, in another order for every token."""
    bias = torch.stack([torch.randperm(128, generator=torch.Generator().manual_seed(i)) for i in range(tokens)])
    return T(values=torch.zeros(tokens, hidden)), T((hidden, 128)), T(values=bias.float() / 8)


def chosen(x, weight_tensor, bias_tensor, k=4):
    values, at = torch.topk(x @ weight_tensor + bias_tensor, k)
    return [at, values.softmax(-1)]


def made(tokens, hidden, **how):
    x, w, b = apart(tokens, hidden)
    return Case((x,), dict(weight_tensor=w, bias_tensor=b) | how, chosen, 3e-2)


def no(words, x=X, w=W, b=B, **how):
    return Refused((x,), dict(weight_tensor=w, bias_tensor=b) | how, words)


CASES = {
    "ttnn.experimental.topk_router_gpt": [
        made(32, 96),
        made(16, 384, k=2),
        made(32, 64, k=1),
        no("requires k in range", k=33),
        no("only supports num_experts=128", num_experts=64),
        no("Input tensor must have BFLOAT16 dtype, got DataType::FLOAT32", T((32, 96), ttnn.float32)),
        no("Bias tensor must have TILE layout, got Layout::ROW_MAJOR", b=T((32, 128), layout=RM)),
        no("Input tensor must be rank 2, got rank 4", T((1, 1, 32, 96))),
        no(r"batch_size in \[1, 32\], got 64", T((64, 96)), b=T((64, 128))),
        no("divisible by 32 .tile size., got 100", T((32, 100)), T((100, 128))),
        no("Weight tensor dim 0 must match input hidden_dim 96, got 64", w=T((64, 128))),
        no("Weight tensor dim 1 must match num_experts 128, got 64", w=T((96, 64))),
        no("Bias tensor dim 0 must match batch size 32, got 16", b=T((16, 128))),
        no("Bias tensor dim 1 must match num_experts 128, got 64", b=T((32, 64))),
    ]
}
