"""Runs networks with PyTorch, on the CPU and on GPUs."""
