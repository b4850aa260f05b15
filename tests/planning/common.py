"""True configurations of the known models."""

from functools import lru_cache

from bringup import loading


@lru_cache
def true_config(hf_id):
    return loading.load_config(loading.Source(hf_id, random_seed=0))
