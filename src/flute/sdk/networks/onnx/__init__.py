"""Networks as ONNX files: one's own in, a trained one out."""
