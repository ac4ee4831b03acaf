"""ONNX Q/DQ: an assignment as QuantizeLinear and DequantizeLinear nodes."""
