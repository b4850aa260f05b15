"""How accurate a bring-up is: the HF model's own tokens go into both, and the logits are compared at every step."""
