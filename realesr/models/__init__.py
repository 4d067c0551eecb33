"""What a network is: its layers, how it is recognised, its weights files, and the same written as ONNX and ncnn."""
