"""Networks: their layers, how they are recognised, files of weights, and the same written as ONNX and ncnn."""
