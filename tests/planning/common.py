"""True configurations of the known models."""

from functools import lru_cache

from bringup.checkpoints import sources


@lru_cache
def true_config(hf_id):
    return sources.load_config(sources.Source(hf_id, random_seed=0))
