"""What HF's names and the arguments of its forward mean on a device that keeps the users' keys itself."""

from typing import Any

import torch
from transformers.loss.loss_utils import ForCausalLMLoss

OF_THE_LOSS = ("num_items_in_batch", "ignore_index", "shift_labels")
_REFUSED = {
    "inputs_embeds": "the token table is on the device, which takes input_ids",
    "output_attentions": "the attention kernel keeps no weights",
}


def named(hf_module: torch.nn.Module, names: tuple[str, ...]) -> Any:
    """What HF's module has by the first of these names that it has, or None."""
    return next((found for name in names if (found := getattr(hf_module, name, None)) is not None), None)


def check_arguments(kwargs: dict):
    """Refuses what forward was given beyond what it names; None and False ask for nothing."""
    for name, value in kwargs.items():
        if value is None or value is False or name in ("position_ids", "cache_position", *OF_THE_LOSS):
            continue
        raise ValueError(f"{name} is not taken: {_REFUSED.get(name, 'forward has no such argument')}")


def token_mask(input_ids: torch.Tensor, attention_mask: torch.Tensor | None, cache) -> torch.Tensor:
    """[users, columns] bool of the new columns: where a token is. With a cache, the mask covers its columns as well."""
    seen = 0 if cache is None else cache.get_seq_length()
    if attention_mask is None:
        return torch.ones(input_ids.shape, dtype=torch.bool)
    want = [len(input_ids), seen + input_ids.shape[1]]
    if list(attention_mask.shape) != want:
        kept = f" after the {seen} columns of past_key_values" if seen else ""
        raise ValueError(
            f"attention_mask must be like input_ids {list(input_ids.shape)}{kept}: {want}, not "
            f"{list(attention_mask.shape)}"
        )
    mask = attention_mask.bool()
    if seen and not torch.equal(mask[:, :seen], cache.mask):
        raise ValueError("attention_mask leaves out other tokens than when past_key_values took them in")
    if cache is not None and not mask[:, seen:].all():
        raise ValueError("attention_mask leaves out a new token: only a prompt without past_key_values may be padded")
    return mask[:, seen:]


def spans(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Where each user's tokens start and stop in its row of input_ids."""
    found = []
    for user, row in enumerate(mask):
        columns = row.nonzero().flatten().tolist()
        if not columns:
            raise ValueError(f"the prompt of user {user} is empty: its attention_mask is all zeros")
        start, stop = columns[0], columns[-1] + 1
        if stop - start != len(columns):
            raise ValueError(
                f"attention_mask of user {user} has a hole: {len(columns)} ones in columns {start} to {stop}"
            )
        found.append((start, stop))
    return found


def check_positions(kwargs: dict, mask: torch.Tensor, cache):
    """Refuses positions other than the tokens' own: counted by token, or, as HF does without any, by column (rotations
    are relative, so that a user's offset changes nothing)."""
    users, columns = mask.shape
    seen = 0 if cache is None else cache.get_seq_length()
    by_column = torch.arange(seen, seen + columns).expand(users, -1)
    at = kwargs.get("cache_position")
    if at is not None and at.tolist() != by_column[0].tolist():
        raise ValueError(f"cache_position must be the columns of input_ids from {seen} on, not {_some(at)}")
    positions = kwargs.get("position_ids")
    if positions is None:
        return
    if positions.dim() != 2 or positions.shape[0] not in (1, users) or positions.shape[1] != columns:
        raise ValueError(f"position_ids must be like input_ids {[users, columns]}, not {list(positions.shape)}")
    lengths = torch.tensor([0] * users if cache is None else cache.lengths)[:, None]
    by_token = mask.cumsum(1) - 1 + lengths
    for user, given in enumerate(positions.expand(users, -1)):
        if not any(torch.equal(given[mask[user]], own[user][mask[user]]) for own in (by_token, by_column)):
            raise ValueError(
                f"position_ids of user {user} must be {_some(by_token[user][mask[user]])}, where its tokens stand in "
                f"the device's cache, not {_some(given[mask[user]])}"
            )


def loss(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, kwargs: dict) -> torch.Tensor:
    """HF's loss of a causal LM, of logits [users, columns, vocabulary]; -100 is not counted.

    A label that padding would predict is refused: HF's padding has logits, the device's has none.
    """
    given = {name: kwargs[name] for name in OF_THE_LOSS if kwargs.get(name) is not None}
    shifted = given.get("shift_labels")
    if shifted is None:
        if labels.shape != mask.shape:
            raise ValueError(f"labels must be like input_ids {list(mask.shape)}, not {list(labels.shape)}")
        shifted = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
    counted = shifted != given.get("ignore_index", -100)
    if (counted & ~mask).any():
        user, column = (counted & ~mask).nonzero()[0].tolist()
        raise ValueError(f"the label after column {column} of user {user} would be predicted by padding: -100 there")
    return ForCausalLMLoss(logits=logits, labels=labels, vocab_size=logits.shape[-1], **given)


def kept(logits: torch.Tensor, logits_to_keep: int | torch.Tensor) -> torch.Tensor:
    """The positions asked for of logits of all: the last n (0: all), those of a tensor of indices, of all users or of
    each; or those where a mask says so."""
    if not isinstance(logits_to_keep, torch.Tensor):
        return logits[:, -logits_to_keep:]
    if logits_to_keep.dim() == 1:
        return logits[:, logits_to_keep]
    if logits_to_keep.dtype is torch.bool:
        return logits[logits_to_keep]
    return torch.take_along_dim(logits, logits_to_keep[..., None], dim=1)


def _some(values: torch.Tensor) -> str:
    shown = values.tolist()
    return ", ".join(map(str, shown[:4])) + (", ..." if len(shown) > 4 else "")
