"""Scaled dot-product attention, and the caches that it reads."""

from . import attention, attention_decode, kv_cache
