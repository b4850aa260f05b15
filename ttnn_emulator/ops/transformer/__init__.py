"""Scaled dot-product attention."""

from . import attention, attention_decode
