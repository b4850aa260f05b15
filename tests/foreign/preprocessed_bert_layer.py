"""A layer of an encoder in the manner of the library's model_preprocessing programs; run as a script, it checks itself.

The torch module's parameters go to the device by its own names: Linear, LayerNorm and Embedding by the library's rules,
query, key and value fused by a preprocessor of its own.
"""

import sys

import torch
import ttnn
from ttnn.model_preprocessing import preprocess_linear_bias, preprocess_linear_weight, preprocess_model_parameters

HEADS, WIDTH, LENGTH, VOCABULARY = 4, 128, 64, 96


class SelfAttention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x):
        split = lambda t: t.view(*t.shape[:2], HEADS, -1).transpose(1, 2)  # noqa: E731
        y = torch.nn.functional.scaled_dot_product_attention(*(split(p(x)) for p in (self.query, self.key, self.value)))
        return y.transpose(1, 2).flatten(2)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.attention, self.output = SelfAttention(), torch.nn.Linear(WIDTH, WIDTH)
        self.norm = torch.nn.LayerNorm(WIDTH, eps=1e-5)
        self.mlp = torch.nn.ModuleList([torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)])

    def forward(self, ids):
        x = self.embedding(ids)
        x = self.norm(x + self.output(self.attention(x)))
        return x + self.mlp[1](torch.nn.functional.gelu(self.mlp[0](x)))


def fused(torch_model, name):
    if not isinstance(torch_model, SelfAttention):
        return {}
    parts = (torch_model.query, torch_model.key, torch_model.value)
    return {
        "qkv": {
            "weight": preprocess_linear_weight(torch.cat([p.weight for p in parts]), dtype=ttnn.bfloat16),
            "bias": preprocess_linear_bias(torch.cat([p.bias for p in parts]), dtype=ttnn.bfloat16),
        }
    }


def layer(ids, parameters):
    x = ttnn.embedding(ids, parameters.embedding.weight, layout=ttnn.TILE_LAYOUT)
    qkv = ttnn.linear(x, parameters.attention.qkv.weight, bias=parameters.attention.qkv.bias)
    q, k, v = ttnn.transformer.split_query_key_value_and_split_heads(qkv, num_heads=HEADS)
    scores = ttnn.transformer.attention_softmax(ttnn.matmul(q, k), head_size=WIDTH // HEADS, attention_mask=None)
    y = ttnn.transformer.concatenate_heads(ttnn.matmul(scores, v))
    y = ttnn.linear(y, parameters.output.weight, bias=parameters.output.bias)
    x = ttnn.layer_norm(ttnn.add(x, y), weight=parameters.norm.weight, bias=parameters.norm.bias, epsilon=1e-5)
    y = ttnn.linear(x, parameters.mlp[0].weight, bias=parameters.mlp[0].bias, activation="gelu")
    return ttnn.add(x, ttnn.linear(y, parameters.mlp[1].weight, bias=parameters.mlp[1].bias))


def main():
    torch.manual_seed(0)
    model = Layer().eval()
    ids = torch.randint(0, VOCABULARY, (2, LENGTH))
    device = ttnn.open_device(device_id=0)
    parameters = preprocess_model_parameters(
        initialize_model=lambda: model.to(torch.bfloat16), custom_preprocessor=fused, device=device
    )
    assert parameters.attention.qkv.weight is parameters["attention"]["qkv"]["weight"]
    on_device = ttnn.from_torch(ids, dtype=ttnn.uint32, layout=ttnn.ROW_MAJOR_LAYOUT, device=device)
    got = ttnn.to_torch(layer(on_device, parameters)).float()
    with torch.no_grad():
        want = model.float()(ids)
    ttnn.close_device(device)
    distance = ((got - want).norm() / want.norm()).item()
    print(f"distance {distance:.4f}")
    return 0 if distance < float(sys.argv[1]) else 1


if __name__ == "__main__":
    sys.exit(main())
