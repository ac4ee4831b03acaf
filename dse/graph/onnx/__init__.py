"""ONNX files to graphs: reading, ordering, shapes."""
