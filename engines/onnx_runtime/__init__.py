"""Runs networks with ONNX Runtime, on the CPU and on the devices that its packages bring."""
