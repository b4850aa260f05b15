"""What ttnn keeps under experimental: heads, rotary embeddings, paged caches."""

from . import cache, heads, rotary
