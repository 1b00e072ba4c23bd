"""Networks for other runtimes: ONNX files, and whether they compute the same."""
