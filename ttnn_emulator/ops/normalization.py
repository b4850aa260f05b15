"""rms_norm, layer_norm and softmax."""
