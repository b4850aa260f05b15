"""What only some users, a second prompt or a long one see."""

import torch
import ttnn

from bringup.blocks.cache import RowCache
from bringup.blocks.rope import RopeTables
from tests.checks.faults import on_host, replaced
from tests.checks.planted.core import K_CACHE, V_CACHE, Q, planted


@planted(
    "tiny-llama",
    (K_CACHE, "self_attn"),
    "from position 128 on the cache is written from its start again",
    r"128|wrap",
    phase="decode",
)
def cache_wraps_at_128(build):
    def make(original):
        def update(cache, x, *, update_idxs_tensor, **kwargs):
            wrapped = on_host(update_idxs_tensor, lambda at: torch.where(at < 0, at, at % 128))
            return original(cache, x, update_idxs_tensor=wrapped, **kwargs)

        return update

    with replaced(ttnn.experimental, "paged_update_cache", make):
        yield build


@planted("tiny-mistral", K_CACHE, "only the first 32 positions of a prompt are cached", r"32|tile|zero")
def prompt_cached_to_its_first_tile(build):
    def make(original):
        def fill(cache, x, row):
            return original(cache, ttnn.slice(x, (0, 0, 0, 0), (1, x.shape[1], 32, x.shape[3])), row)

        return fill

    with replaced(ttnn, "fill_cache", make):
        yield build


@planted(
    "tiny-llama",
    (K_CACHE, "self_attn"),
    "a second prompt in a row is not cached: the first one's keys stay",
    r"second prompt|earlier|another prompt|before",
    phase=None,
)
def second_prompt_not_cached(build):
    def make(original):
        def fill(self, k, v, step):
            filled = self.__dict__.setdefault("filled", set())
            if step.row not in filled:
                original(self, k, v, step)
            filled.add(step.row)

        return fill

    with replaced(RowCache, "fill", make):
        yield build


@planted("tiny-llama", Q, "users 8 to 11 are rotated for the position of user 0", r"users? 8", phase="decode")
def some_users_at_the_first_ones_position(build):
    def make(original):
        def look_up(self, positions):
            def change(at):
                at = at.clone()
                at[..., 8:12] = at[..., :1]
                return at

            return original(self, on_host(positions, change))

        return look_up

    with replaced(RopeTables, "look_up", make):
        yield build


@planted("tiny-allam", (V_CACHE, "self_attn"), "user 31 has the values of user 30", r"users? 31", phase="decode")
def last_user_has_its_neighbours_values(build):
    def make(original):
        def update(self, k, v, step):
            return original(self, k, on_host(v, lambda x: torch.cat([x[:, :31], x[:, 30:31]], dim=1)), step)

        return update

    with replaced(RowCache, "update", make):
        yield build
