"""Analysis of prompts and models: information, gradients, graph recovery."""
