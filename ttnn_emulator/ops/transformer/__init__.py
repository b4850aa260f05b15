"""Scaled dot-product attention, and the caches that it reads."""

from . import attention, attention_decode, delta_rule, kv_cache, latent
