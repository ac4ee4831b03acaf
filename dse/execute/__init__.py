"""The ONNX graph run in torch with quantizers at its sites."""
