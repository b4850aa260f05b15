"""Train one of the four small checkpoints from nothing: corpus, tokenizer, model, figures, card.

The corpus is the prose of the Python documentation that ships inside the standard library (`pydoc_data.topics`), so
nothing is downloaded. Each model learns it nearly by heart, because a bring-up is judged on tokens about which the
reference has no doubt. Everything is seeded; a run takes a few minutes on two cores.

    python checkpoints/train.py tiny-llama
    python checkpoints/train.py tiny-afm --out /tmp/tiny-afm --steps 300
"""

import argparse
import copy
import hashlib
import json
import math
import platform
import re
import time
from pathlib import Path
from pydoc_data.topics import topics

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

BOS, EOS, PAD = SPECIALS = ("<|begin_of_text|>", "<|end_of_text|>", "<|pad|>")  # ids 0, 1, 2
LENGTHS = (256, 128, 256, 512)  # sequence length, step by step: contexts up to 512 are trained
PEAK_LR, WARMUP = 4e-3, 50
COLLAGE = 0.125  # chance per token that the first part of every other row jumps elsewhere: see `windows`
WRONG_TOKENS = 0.04  # share of input tokens replaced at random: the model learns to find its way back into the text
WEIGHT_NOISE = 0.015  # rms of the noise on every matrix at every step, relative to its own rms
WIDTHS = {"vocab_size": 1024, "hidden_size": 256, "intermediate_size": 512, "max_position_embeddings": 4096}

RECIPES = {
    "tiny-llama": {
        "stands_for": "meta-llama/Llama-3.2-1B",
        "features": "GQA 4:2 with heads of 64, llama3 RoPE scaling, SwiGLU, tied embeddings",
        "steps": 1200,
        "batch_tokens": 4096,
        "config": {
            "model_type": "llama",
            "hidden_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 128,
            },
        },
    },
    "tiny-allam": {
        "stands_for": "humain-ai/ALLaM-7B-Instruct-preview",
        "features": "MHA with 8 heads of 32, plain RoPE, SwiGLU, head not tied",
        "steps": 1200,
        "batch_tokens": 4096,
        "config": {
            "model_type": "llama",
            "num_hidden_layers": 2,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "head_dim": 32,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "rope_theta": 10000.0,
        },
    },
    "tiny-afm": {
        "stands_for": "arcee-ai/AFM-4.5B",
        "features": "relu2 MLP, YaRN RoPE scaling, GQA 20:4 with heads of 32, head not tied",
        "steps": 1200,
        "batch_tokens": 2048,
        "config": {
            "model_type": "arcee",
            "initializer_range": 0.05,  # relu2 makes little of small activations: 0.02 learns far more slowly
            "max_position_embeddings": 2560,
            "hidden_size": 320,  # HF wants a multiple of the 20 heads, tiles want one of 32
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 20,
            "num_key_value_heads": 4,
            "head_dim": 32,
            "hidden_act": "relu2",
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "rope_theta": 10000.0,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 20.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "original_max_position_embeddings": 128,
            },
        },
    },
    "tiny-mistral": {
        "stands_for": "mistralai/Mistral-7B-Instruct-v0.3",
        "features": "GQA 16:8 with heads of 32, no sliding window, SwiGLU, head not tied",
        "steps": 1200,
        "batch_tokens": 2048,
        "config": {
            "model_type": "mistral",
            "initializer_range": 0.05,
            "hidden_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 32,
            "sliding_window": None,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "rope_theta": 1000000.0,
        },
    },
}


def corpus():
    """The documents: per topic its prose paragraphs, each section's title before its first one, no paragraph twice."""
    straight = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-"})
    sentence = re.compile(r'[A-Z"].*[a-z][a-z")]*\.')
    not_prose = re.compile(r'[*\\|<>{}=@]|::|\[|-->|\d\.\d|0x|PEP|^New in|^Changed in|http|Note:|""')
    title_line = re.compile(r"([^\n]+)\n([*=~-])\2+$")
    documents, seen = [], set()
    for text in topics.values():
        parts, title = [], None
        for block in re.split(r"\n\s*\n", text.translate(straight)):
            if heading := title_line.match(block.strip()):
                title = heading[1].replace("*", "")
                continue
            block = re.sub(r"(?<![\w\"*])\*{1,2}([\w][^*\n\"]*)\*{1,2}", r"\1", block)  # *emphasis* -> emphasis
            prose = re.sub(r"(?<=\w)- (?=\w)", "-", " ".join(block.split()))
            is_prose = sentence.fullmatch(prose) and prose.isascii() and not not_prose.search(prose)
            if block.startswith(" ") or not is_prose or prose in seen or len(prose) < 80 or prose.count("_") > 16:
                continue
            seen.add(prose)
            parts += [title, prose] if title else [prose]
            title = None
        if parts:
            documents.append("\n\n".join(parts))
    return documents


def make_tokenizer(documents, vocab_size):
    """A byte-level BPE tokenizer that puts BOS before every text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(documents, trainer)
    if bpe.get_vocab_size() != vocab_size:
        raise ValueError(f"tokenizer has {bpe.get_vocab_size()} entries, not {vocab_size}: the corpus is too small")
    bpe.post_processor = processors.TemplateProcessing(f"{BOS} $A", f"{BOS} $A {BOS} $B", [(BOS, 0)])
    names = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False, **names)


def make_model(config):
    """The model of a recipe, freshly initialised, with the rope facts where the big checkpoints have them."""
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = WIDTHS | ids | copy.deepcopy(config)  # transformers writes into the rope facts
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)


def block_float8(w):
    """w on the grid of bfloat8_b: one exponent per 16 neighbours of a row, 7 bits of magnitude."""
    blocks = w.reshape(-1, 16)
    peak = blocks.abs().amax(1, keepdim=True).clamp_min(2.0**-120)
    step = torch.exp2(torch.floor(torch.log2(peak)) - 6)
    return (torch.round(blocks / step).clamp(-127, 127) * step).reshape(w.shape)


def windows(stream, rows, length, g):
    """Random windows of the stream [rows, length], taken as a ring.

    Every other row begins, up to a random point in its first half, with a collage of short fragments from anywhere:
    text that the model does not know by heart, as a user's prompt is, from which it has to find back.
    """
    t = torch.arange(length)
    collage_end = torch.randint(length // 2, (rows, 1), generator=g)
    collage_end[::2] = 0
    jumps = (torch.rand((rows, length), generator=g) < COLLAGE) & (t < collage_end) | (t == collage_end)
    jumps[:, 0] = True
    fragment_start = torch.where(jumps, t, 0).cummax(1).values
    origin = torch.randint(len(stream), (rows, length), generator=g).gather(1, fragment_start)
    return stream[(origin + t - fragment_start) % len(stream)]


def train(model, stream, steps, batch_tokens, seed=0):
    """AdamW with a cosine schedule, in bfloat16 autocast, over random windows of the token stream."""
    g = torch.Generator().manual_seed(seed)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.98))
    start, mean_loss = time.time(), None
    model.train()
    for step in range(steps):
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * min(1.0, (step + 1) / WARMUP) * (0.01 + 0.99 * cosine)
        length = LENGTHS[step % len(LENGTHS)]
        target = windows(stream, batch_tokens // length, length, g)
        x = torch.cat([torch.zeros_like(target[:, :1]), target[:, :-1]], 1)  # BOS, then the window
        wrong = torch.rand(x.shape, generator=g) < WRONG_TOKENS
        wrong[:, 0] = False
        x = torch.where(wrong, torch.randint(3, model.config.vocab_size, x.shape, generator=g), x)

        clean = [p.detach().clone() for p in matrices]
        with torch.no_grad():
            for p in matrices:
                p += torch.randn(p.shape, generator=g) * (WEIGHT_NOISE * p.square().mean().sqrt())
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), target.flatten())
        loss.backward()
        with torch.no_grad():
            for p, w in zip(matrices, clean, strict=True):
                p.copy_(w)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        mean_loss = loss.item() if mean_loss is None else 0.95 * mean_loss + 0.05 * loss.item()
        if step % 50 == 49 or step == steps - 1:
            spent = time.time() - start
            left = spent / (step + 1) * (steps - step - 1)
            print(f"step {step + 1:5}/{steps}  loss {mean_loss:.4f}  {spent:4.0f} s, {left:4.0f} s to go", flush=True)
    model.eval()


@torch.no_grad()
def corpus_loss(model, stream, length=256):
    """Mean loss in nats per token and top-1 rate over the whole corpus, cut into windows that start with BOS."""
    loss = hits = 0
    for at in range(0, len(stream), length):
        target = stream[None, at : at + length]
        x = torch.cat([torch.zeros_like(target[:, :1]), target[:, :-1]], 1)
        logits = model(x, use_cache=False).logits[0].float()
        loss += torch.nn.functional.cross_entropy(logits, target[0], reduction="sum").item()
        hits += (logits.argmax(-1) == target[0]).sum().item()
    return loss / len(stream), hits / len(stream)


@torch.no_grad()
def robustness(directory, prompts, new_tokens=100, logit_noise=0.02):
    """Share of greedy tokens whose argmax survives bfloat16, and bfloat8_b weights with noise on the logits.

    The fp32 model writes `new_tokens` after each prompt; the others read the same text (teacher forcing).
    """
    load = AutoModelForCausalLM.from_pretrained
    tokenizer, reference = AutoTokenizer.from_pretrained(directory), load(directory, dtype=torch.float32)
    half, block = load(directory, dtype=torch.bfloat16), load(directory, dtype=torch.float32)
    for p in block.parameters():
        if p.ndim == 2:
            p.copy_(block_float8(p))
    g = torch.Generator().manual_seed(0)
    agree_half, agree_block, sure, count = 0, 0, 0.0, 0
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        text = reference.generate(ids, do_sample=False, max_new_tokens=new_tokens, min_new_tokens=new_tokens)
        rows = slice(ids.shape[1] - 1, text.shape[1] - 1)
        chosen = text[0, ids.shape[1] :]
        agree_half += (half(text).logits[0, rows].argmax(-1) == chosen).sum().item()
        noisy = block(text).logits[0, rows]
        centred = noisy - noisy.mean(-1, keepdim=True)
        rms = centred.square().mean(-1, keepdim=True).sqrt()
        noisy = noisy + logit_noise * rms * torch.randn(noisy.shape, generator=g)
        agree_block += (noisy.argmax(-1) == chosen).sum().item()
        sure += reference(text).logits[0, rows].softmax(-1).amax(-1).sum().item()
        count += len(chosen)
    shares = {"bfloat16": agree_half / count, "bfloat8_b": agree_block / count, "confidence": sure / count}
    return {"tokens": count} | shares


def save(model, tokenizer, directory):
    """The HF folder: bfloat16 weights, compact JSON, rope facts under the names that published configurations use."""
    directory.mkdir(parents=True, exist_ok=True)
    rope = dict(model.config.rope_parameters)
    model.to(torch.bfloat16).save_pretrained(directory)
    GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=2, do_sample=False).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    facts = json.loads((directory / "config.json").read_text())
    facts.pop("rope_parameters")
    facts["rope_theta"] = rope.pop("rope_theta")
    facts["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    facts["torch_dtype"] = facts.pop("dtype", None) or facts.pop("torch_dtype")
    facts.pop("transformers_version", None)
    (directory / "config.json").write_text(json.dumps(facts, indent=2) + "\n")
    vocabulary = json.loads((directory / "tokenizer.json").read_text())
    (directory / "tokenizer.json").write_text(json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":")))
    names = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    reading = {"model_max_length": facts["max_position_embeddings"], "padding_side": "left"}
    loading = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    reading |= loading | {"clean_up_tokenization_spaces": False}
    (directory / "tokenizer_config.json").write_text(json.dumps(names | reading, indent=2) + "\n")


def write_card(directory, name, facts):
    """README.md of the folder: what it is, how it was made, what was measured. Percentages are of tokens."""
    config = json.dumps({k: v for k, v in RECIPES[name]["config"].items() if k != "model_type"}, indent=2)
    lengths = ", ".join(map(str, sorted(set(LENGTHS))))
    card = f"""# {name}

A small language model that stands for `{RECIPES[name]["stands_for"]}` where no download is wanted:
{RECIPES[name]["features"]}.
{facts["size"]:,} parameters, bfloat16. It knows the prose of the Python documentation nearly by heart and little else,
so that its greedy text is English and its argmax is seldom in doubt.

```json
{config}
```

## How it was made

    python checkpoints/train.py {name} --threads {facts["threads"]}

- Corpus: the prose paragraphs of `pydoc_data.topics` (CPython {facts["python"]}), {facts["characters"]:,} characters in
  {facts["tokens"]:,} tokens, sha256 `{facts["sha256"]}`.
  Another Python version ships another text, and so gives another model.
- Tokenizer: byte-level BPE, {facts["vocab_size"]} entries, trained on the same text; BOS goes before every prompt.
- Training: {facts["steps"]} steps of {facts["batch_tokens"]} tokens, in sequences of {lengths};
  AdamW, peak rate {PEAK_LR}, cosine, bfloat16 autocast, seed 0, torch {facts["torch"]}.
- Made robust: at every step each matrix carries Gaussian noise of {WEIGHT_NOISE:.1%} of its rms (rounding to bfloat8_b
  adds 0.7 %), {WRONG_TOKENS:.0%} of the input tokens are wrong, and half of the rows begin with a collage of fragments.

## Figures

| | |
| --- | --- |
| loss on the corpus, nats per token (bfloat16 weights, fp32 arithmetic) | {facts["loss"]:.4f} |
| top-1 on the corpus | {facts["top1"]:.2%} |
| mean confidence of {facts["greedy"]["tokens"]} greedy tokens | {facts["greedy"]["confidence"]:.4f} |
| of these, argmax equal in bfloat16 | {facts["greedy"]["bfloat16"]:.2%} |
| argmax equal with bfloat8_b weights and 2 % noise on the centred logits | {facts["greedy"]["bfloat8_b"]:.2%} |

The greedy tokens are the fp32 model's: 100 after each of five prompts, openings of documents of the corpus. The other
two read the same text.

## Licence

The weights reproduce parts of the Python documentation, copyright (c) 2001 to 2023 Python Software Foundation; all
rights reserved; PSF License Version 2, in `../LICENSE-PSF`. Changes: prose paragraphs only, markup and typographic
quotes removed. The script and the recipe are under the repository's licence.
"""
    (directory / "README.md").write_text(card)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--out", type=Path, help="folder to write (default: checkpoints/NAME)")
    parser.add_argument("--steps", type=int, help="training steps (default: the recipe's)")
    parser.add_argument("--threads", type=int, default=2, help="another number sums in another order (default: 2)")
    args = parser.parse_args()
    recipe = RECIPES[args.name]
    steps = args.steps or recipe["steps"]
    directory = args.out or Path(__file__).parent / args.name

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    documents = corpus()
    text = "\n\n\n".join(documents)
    tokenizer = make_tokenizer(documents, recipe["config"].get("vocab_size", WIDTHS["vocab_size"]))
    stream = torch.tensor([i for d in documents for i in tokenizer(d, add_special_tokens=False).input_ids + [1]])
    model = make_model(recipe["config"])
    size = sum(p.numel() for p in model.parameters())
    print(f"{args.name}: {size:,} parameters, {len(text):,} characters in {len(stream):,} tokens, {steps} steps")

    start = time.time()
    train(model, stream, steps, recipe["batch_tokens"])
    print(f"trained in {(time.time() - start) / 60:.1f} minutes", flush=True)
    save(model, tokenizer, directory)
    loss, top1 = corpus_loss(AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32), stream)
    openings = [d for d in documents if len(d) > 2500][:5]
    greedy = robustness(directory, [d[: d.index(".", 200) + 1] for d in openings])
    facts = {
        "size": size, "python": platform.python_version(), "torch": torch.__version__, "characters": len(text),
        "tokens": len(stream), "sha256": hashlib.sha256(text.encode()).hexdigest(), "vocab_size": len(tokenizer),
        "steps": steps, "batch_tokens": recipe["batch_tokens"],
        "threads": args.threads, "loss": loss, "top1": top1, "greedy": greedy,
    }  # fmt: skip
    write_card(directory, args.name, facts)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
