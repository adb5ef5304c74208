"""In-context learning of causal structure, in JAX."""
