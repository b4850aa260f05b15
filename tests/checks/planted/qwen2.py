"""tiny-allam with biases on q, k and v: a Qwen2, since none of the small checkpoints has a bias."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[3]
ALLAM = ROOT / "models" / "humain-ai" / "ALLaM-7B-Instruct-preview" / "n150" / "functional" / "model.py"
SIZE = 0.1  # of a bias; it moves q, k and v well beyond what bfloat16 does, and leaves the text sane


def checkpoint(into: Path) -> Path:
    shutil.copytree(ROOT / "checkpoints" / "tiny-allam", into)
    config = json.loads((into / "config.json").read_text())
    config |= {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": False}
    (into / "config.json").write_text(json.dumps(config))
    weights, random = load_file(into / "model.safetensors"), torch.Generator().manual_seed(0)
    for layer in range(config["num_hidden_layers"]):
        for part in ("q_proj", "k_proj", "v_proj"):
            name = f"model.layers.{layer}.self_attn.{part}."
            rows = len(weights[name + "weight"])
            weights[name + "bias"] = (SIZE * torch.randn(rows, generator=random)).to(weights[name + "weight"].dtype)
    save_file(weights, into / "model.safetensors", metadata={"format": "pt"})
    return into


def model_file(into: Path) -> Path:
    """ALLaM's model file, for Qwen2: the attention block adds the biases that HF's has."""
    text = ALLAM.read_text().replace('"model_type": ["llama"]', '"model_type": ["qwen2"]')
    for field in ("attention_bias", "mlp_bias"):
        text = text.replace(f'        "{field}": [False],\n', "")
    path = into / "models" / "tests" / "tiny-qwen2" / "n150" / "functional" / "model.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path
