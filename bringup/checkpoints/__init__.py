"""HF checkpoints and what is known of them: sources, configurations, weights in files and at random, the reference."""
