"""Noise learning: the rates of a detector error model from detection events alone.

In: a circuit and detection events.  Out: a weighted model.  Start at ``learn``:

circuit -> faults -> error structure -> parities of detection events -> rates of all mechanisms ->
channel fit -> local rates -> weighted detector error model
"""

from qec.noise_learning.estimator import NoiseEstimate
from qec.noise_learning.learn import NoiseLearner, learn_noise

__all__ = ["NoiseEstimate", "NoiseLearner", "learn_noise"]
