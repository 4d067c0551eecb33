"""Weights -> ONNX -> TensorRT, each with proof that the result computes the same thing.

`run.export_network` does what `realesr export` is asked for; `from_torch.export_module` takes a module of PyTorch.
"""
