"""The pre-decoder as one ONNX graph, for runtimes other than torch: `qec export`."""
