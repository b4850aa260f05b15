"""Does a model fit, with how long a context, on which system: bytes per chip before any weight is loaded."""

from dataclasses import dataclass
from functools import cached_property

from bringup.backends import systems
from bringup.errors import BringupError
from bringup.planning.formats import Formats
from bringup.planning.shapes import BLOCK, TILE, USERS, Shapes

PROMPT_CHUNK = 1024  # tokens of a prompt that run at once where the cache is paged (bringup.blocks.cache)
USER_COUNTS = (1, 8, 32)
TRIES = 4


@dataclass(frozen=True)
class Memory:
    """One chip's DRAM for a configuration, tensor parallel over all chips of a system."""

    config: object
    system: "systems.System"
    formats: Formats

    @cached_property
    def shapes(self):
        return Shapes(self.config, self.system.chips, self.formats, self.system.chip)

    @cached_property
    def weights(self):
        """Bytes by group."""
        return self.shapes.weight_bytes()

    @property
    def total(self):
        return self.system.chip.dram_bytes

    @property
    def most_positions(self):
        return self.config.max_position_embeddings

    def held(self, context, users=None):
        """What is there once the model is built: an unpaged cache of 32 rows, or a paged one for `users` users.

        A paged cache has one block more, which is nobody's.
        """
        shapes = self.shapes
        if users is None:
            cache = shapes.cache_bytes(context)
        else:
            cache = shapes.paged_cache_bytes(context, users)
        return sum(self.weights.values()) + shapes.rope_bytes(context) + cache

    def needed(self, context, users=None):
        """With what a prompt of that length and loading need beside it; a paged prompt runs in chunks."""
        rows = context if users is None else min(context, PROMPT_CHUNK)
        return self.held(context, users) + self.shapes.activation_bytes(rows) + self.shapes.upload_bytes()

    def longest(self, users=None):
        """The longest context that fits, whole tiles (unpaged) or blocks (paged); 0 where none does.

        At most the model's own positions. Free memory counts as one piece.
        """
        step = TILE if users is None else BLOCK
        low, high = 0, -(-self.most_positions // step)
        while low < high:
            middle = (low + high + 1) // 2
            if self.needed(middle * step, users) <= self.total:
                low = middle
            else:
                high = middle - 1
        return min(low * step, self.most_positions)

    def longest_contexts(self):
        """{"unpaged": positions for any number of users up to 32, "paged": {users: positions of each}}."""
        return {"unpaged": self.longest(), "paged": {str(users): self.longest(users) for users in USER_COUNTS}}

    def fits(self, context, users):
        """ "unpaged", "paged" or None: the cache with which `users` users have `context` positions each."""
        if self.needed(context) <= self.total:
            return "unpaged"
        return "paged" if self.needed(context, users) <= self.total else None

    def as_dict(self, context, users):
        shapes = self.shapes
        kind = self.fits(context, users)
        return {
            "total": self.total,
            "weights": self.weights,
            "weights_total": sum(self.weights.values()),
            "cache": {"unpaged": shapes.cache_bytes(context), "paged": shapes.paged_cache_bytes(context, users)},
            "cache_per_position": {
                "unpaged": USERS * shapes.position_bytes(),
                "user": shapes.position_bytes(),
            },
            "rope": shapes.rope_bytes(context),
            "activations_estimate": shapes.activation_bytes(context if kind != "paged" else min(context, PROMPT_CHUNK)),
            "needed": self.needed(context, users if kind == "paged" else None),
            "fits": kind,
        }


def smallest_system(config, formats, context, users):
    """The name of the system with the least memory that holds it, or None."""
    held = (s.name for s in systems.machines() if Memory(config, s, formats).fits(context, users))
    return next(held, None)


def check_longest(model_py, config, system, formats, contexts):
    """Builds and runs the model file by shapes alone at its longest contexts, shorter by 3 % where one is refused.

    -> {"unpaged": {"context": the one that ran or 0, "refused": the first refusal or None}, "paged": {...}}. What the
    count does not see is memory that is free in pieces. The file chooses its cache itself: 32 rows where they fit, else
    a pool of blocks.
    """
    counted = {"unpaged": contexts["unpaged"], "paged": contexts["paged"]["1"]}
    return {kind: _run_longest(model_py, config, system, formats, kind, context) for kind, context in counted.items()}


def _run_longest(model_py, config, system, formats, kind, context):
    from bringup.planning.spec_run import spec_run

    refused = None
    for _ in range(TRIES if context else 0):
        prompt = context - 1 if kind == "unpaged" else min(context - 1, 2 * PROMPT_CHUNK)
        try:
            spec_run(model_py, config, system, max_seq_len=context, prompt=prompt, formats=formats)
            return {"context": context, "refused": refused}
        except BringupError as error:
            refused = refused or str(error)
            context = int(context * 0.97) // BLOCK * BLOCK
    return {"context": 0, "refused": refused}
