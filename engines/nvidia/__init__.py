"""Runs TensorRT engines on NVIDIA GPUs."""
