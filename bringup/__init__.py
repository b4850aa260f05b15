"""Bring up Hugging Face language models on Tenstorrent devices, with or without a board."""

__version__ = "0.2.0"
