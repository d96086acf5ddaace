"""No table is wider than 100 characters, however long the names and large the numbers are.

Those of `qec sweep` and `qec evaluate` are in tests/evaluation.
"""

import dataclasses
import io
import itertools
import types

import numpy as np
import pytest
from printed import widest

from qec.benchmarks import (
    backends,
    decoding_time,
    learned_weights,
    noise_drift,
    paper_tables,
    window_errors,
    window_speed,
)
from qec.benchmarks.step_timer import STEPS
from qec.calibration.confidence_against_errors import Calibration
from qec.calibration.report import print_confidence, print_stages
from qec.calibration.stages import Stage
from qec.decoding.confidence_file import print_summary
from qec.evaluation.sweep_table import SweepRow
from qec.noise_learning.command import print_estimate, print_scores
from qec.noise_learning.cross_fit import Score
from qec.realtime.command import print_tables as print_realtime
from qec.realtime.report import PERCENTILES
from qec.support.statistics import paired_ratio
from qec.support.tables import print_table

LONGEST = "predecoder[my-own-network.safetensors]+matching-cascade-ensemble"
MANY = 123_456_789
POINT = {"d": 21, "r": 1000, "p": 0.00123, "b": "X", "noise": "uniform", "o": "ZV"}
RATIO = paired_ratio(MANY, MANY // 123, MANY // 130)


def of_calibrate():
    counts = {"shots": MANY, "handed_on": MANY // 3, "checked_handed_on": 50_000}
    counts |= {"changed_handed_on": 12345, "checked_kept": 50_000, "changed_kept": 1234}
    times = {"memory_us": 12345.6, "handed_on_us": 123456.7, "kept_us": 123456.7}
    names = ("correlated matching", "matching-cascade-ensemble")
    stages = tuple(Stage(name=name, nats=5.0, **counts, **times) for name in names)
    print_stages(types.SimpleNamespace(stages=types.SimpleNamespace(stages=stages), known=True), "")
    rng = np.random.default_rng(1)
    nats = rng.exponential(2, 100_000)
    wrong = rng.random(100_000) < 1 / (1 + np.exp(nats))
    print_confidence([Calibration.of(LONGEST, wrong, nats, nats)])


def of_decode():
    rng = np.random.default_rng(1)
    nats = rng.exponential(2, 100_000)
    text = io.StringIO()
    print_summary(nats, rng.random(100_000) < 1 / (1 + np.exp(nats)), text)
    print(text.getvalue())


def of_learn_noise():
    baseline = "Google's pij, matching-cascade-ensemble"
    score = Score("published", LONGEST, baseline, MANY, MANY // 9, MANY // 10, MANY // 11)
    print_scores({"surface_code_bX_d5_r25_center_5_5": [score, score]})
    x = np.geomspace(1e-300, 1, 6)
    structure = types.SimpleNamespace(x=x, size=np.array([1, 2, 3, 4, 5, 100]))
    print_estimate(
        types.SimpleNamespace(
            **{"structure": structure, "probability": x / 3, "standard_error": x / 7},
            **{"method": "correlation-pooled", "shots": MANY},
            spread=dict.fromkeys(("sites", "locations", "mechanisms"), 2.34),
        )
    )


def of_benchmark():
    names = ("pymatching-css", "pymatching-memory-css", "pymatching-correlated-css", LONGEST)
    network = {"predecoder": "my-own-network.safetensors", "backend": "onnxruntime-int8"}
    steps = dict.fromkeys(STEPS, 12345.678)
    metadata = {**POINT, "batch": 65536, "threads": 128}
    rest = (steps, 0.1234, 123.4, (1e13, 1e12), "bfloat16")
    timings = [
        decoding_time.Timing(metadata, name, network if name == LONGEST else {}, *rest)
        for name in names
    ]
    decoding_time.print_tables(timings, 128)


def of_realtime():
    report = types.SimpleNamespace(
        **{"decoder": LONGEST, "period_us": 12345.6, "deadline_us": 123456.0, "commit": 63},
        **{"buffer": 21, "us_per_round": 12345.6, "stable": False, "n_par": 123.45},
        **{"fell_back": 0.9, "late": 0.1, "answers": np.ones(10**6), "decided": 1, "windows": 1},
        **{"latency_us": {"all": [MANY / 10] * len(PERCENTILES)}, "reaction_us": [MANY / 10] * 5},
    )
    settings = types.SimpleNamespace(
        **{"deadline_us": (123456.0,), "workers": 64, "predecoder_workers": 64, "device": "cpu"},
        **{"distance": 21, "rounds": 10**6, "qubits": 128, "source": lambda: "p = 0.00123"},
    )
    print_realtime([report, report], settings, np.zeros(10**6))


def of_benchmark_backends():
    rows = [backends.BackendTime(21, "onnxruntime-int8", 12345.678, MANY)]
    print_table(backends.columns("onnxruntime-int8"), rows)


def of_benchmark_windows():
    row = window_errors.WindowErrors(
        **{"metadata": POINT, "decoder": LONGEST, "shots": MANY, "errors": MANY, "whole": MANY},
        **{"over_whole": RATIO, "matching": MANY, "matching_over": RATIO},
    )
    window_errors.print_tables([row, row], parallel=True)


def of_benchmark_window_speed():
    ways = ("whole", "windows", "peer")
    speed = window_speed.WindowSpeed(
        *(POINT, LONGEST, 63, 21, MANY),
        *(dict.fromkeys(ways, 12345.678), dict.fromkeys(ways, MANY)),
    )
    window_speed.print_speeds([speed])


def of_benchmark_weights():
    learned_weights.print_tables(
        [
            learned_weights.WeightsRecord(
                *("location", 21, draw, method, 10**6, 12345.678, correlated),
                *(MANY, MANY // 100, MANY // 110, MANY // 120),
            )
            for draw, method, correlated in itertools.product(
                range(2), ("uniform guess", "correlation-pooled"), (False, True)
            )
        ]
    )


def of_benchmark_drift():
    noise_drift.print_counts({("tracked", True): np.array([MANY, MANY - 1, MANY // 2])})


def of_paper_factors():
    counts = dict.fromkeys((f.name for f in dataclasses.fields(SweepRow)[4:]), MANY)
    metadata = {**POINT, "p": 0.006, "d": 21}
    row = SweepRow("1", metadata, "predecoder+pymatching", "pymatching-css", **counts)
    print_table(paper_tables.COLUMNS, [row])


@pytest.mark.parametrize(
    "printed", [value for name, value in globals().items() if name.startswith("of_")]
)
def test_the_table_takes_100_characters_at_most(printed, capsys):
    printed()
    text = capsys.readouterr().out
    assert "---  ---" in text  # there is a table
    assert widest(text) <= 100
