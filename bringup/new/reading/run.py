"""The small model of a kind, run once: what its attention hands to its kernel, what every module takes and gives."""

from dataclasses import dataclass, field

TOKENS = 40  # beyond the window of the small model
KERNEL = "bringup"  # the name of our attention among HF's


@dataclass
class Run:
    """`calls`: module name -> (args, kwargs, output) of its call; `kernel`: attention's name -> what it handed over."""

    model: object
    calls: dict = field(default_factory=dict)
    kernel: dict = field(default_factory=dict)
    times: dict = field(default_factory=dict)
    logits: object = None

    @property
    def config(self):
        return self.model.config

    def module(self, name):
        return self.model.get_submodule(name)

    def into(self, name):
        """The hidden states that a module took."""
        args, kwargs, _ = self.calls[name]
        return args[0] if args else kwargs["hidden_states"]

    def out_of(self, name):
        output = self.calls[name][2]
        return output[0] if isinstance(output, tuple) else output


def run(model):
    """A `Run` of the model over some tokens, in float32; its attention goes through our kernel."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    seen = Run(model)
    names = {id(m): n for n, m in model.named_modules()}
    AttentionInterface.register(KERNEL, lambda *args, **kwargs: _kernel(seen, names, *args, **kwargs))
    AttentionMaskInterface.register(KERNEL, eager_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(KERNEL)

    def note(name):
        def hook(module, args, kwargs, output):
            seen.times[name] = seen.times.get(name, 0) + 1
            seen.calls[name] = tuple(map(_kept, (args, kwargs, output)))

        return hook

    handles = [m.register_forward_hook(note(n), with_kwargs=True) for n, m in model.named_modules()]
    ids = torch.randint(3, model.config.vocab_size, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            seen.logits = model(ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
        model.set_attn_implementation(before)
    return seen


def _kernel(seen, names, module, query, key, value, attention_mask, scaling=None, **kwargs):
    """Attention as HF's own eager one, noting what it was given."""
    import torch

    groups = query.shape[1] // key.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * scale
    if (cap := kwargs.get("softcap")) is not None:
        scores = (scores / cap).tanh() * cap
    scores = scores if attention_mask is None else scores + attention_mask
    if (sinks := kwargs.get("s_aux")) is not None:
        column = sinks.view(1, -1, 1, 1).expand(len(scores), -1, scores.shape[2], 1)
        shares = torch.cat((scores, column), -1).softmax(-1)[..., :-1]
    else:
        shares = scores.softmax(-1)
    out = (shares @ value.repeat_interleave(groups, 1)).transpose(1, 2).contiguous()
    given = {"q": query, "k": key, "v": value, "mask": attention_mask, "scale": scale, "out": out}
    seen.kernel[names[id(module)]] = given | {"cap": cap, "sinks": sinks}
    return out, None


def _kept(value):
    """Tensors as they were then: some models add in place."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, (tuple, list)):
        return type(value)(map(_kept, value)) if type(value) in (tuple, list) else value
    return {k: _kept(v) for k, v in value.items()} if type(value) is dict else value
