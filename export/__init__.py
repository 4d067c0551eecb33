"""Weights -> ONNX -> TensorRT, each with proof that the result computes the same thing.

`run.export_network` exports a network of realesr, `from_torch.export_module` a module of PyTorch.
"""
