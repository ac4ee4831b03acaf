"""ONNX with Q/DQ as NVIDIA's TensorRT accepts it."""
