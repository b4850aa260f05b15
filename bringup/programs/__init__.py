"""Programs of others, run as they are on a backend that is chosen for them."""
