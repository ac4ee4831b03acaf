"""ONNX file to annotated graph."""
