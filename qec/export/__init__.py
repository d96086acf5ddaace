"""The pre-decoder as one ONNX graph, for runtimes other than torch: `qec export`.

In: a checkpoint and an error model.  Out: a checked graph, the model whose detectors it takes.
Start at ``graph``.
"""
