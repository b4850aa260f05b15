"""Choices of dtype and precision by what they cost and bring."""
