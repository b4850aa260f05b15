"""matmul and linear."""
