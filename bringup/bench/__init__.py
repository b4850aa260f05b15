"""The emulator's speed against HF's on the same machine."""
