"""Validation of commit rules: the same counts however it is dealt out, stopped and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import stim

from qec.circuit import memory_circuit
from qec.code import RotatedSurfaceCode
from qec.config import load_config
from qec.decoder import Decoder
from qec.errors import PREEMPTED_STATUS, Preempted, QecError
from qec.lattice import SpaceTimeLattice
from qec.noise import CircuitNoise
from qec.patch import MEMORY
from qec.pool import results
from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.correction import Predecoder
from qec.predecoder.rule import CommitRule, CommitRules, SecondLook
from qec.training import candidates, choice, validate
from qec.training.candidates import SHOTS_PER_PASS, Counts, Pass, Trial, Tried, count
from qec.training.rules import write_with_rules
from qec.training.settings import TrainSettings
from qec.training.validate import FoundCounts, validation_records

CANDIDATES = Tried((0.5, 0.9), (0.0, 0.3))


@pytest.fixture(scope="module")
def network():
    return load_predecoder("fast").network


def settings(out, *more: str) -> TrainSettings:
    keys = ["validation_distances=[3]", "validation_noises=[uniform]", "validation_shots=2500"]
    return TrainSettings.from_config(load_config("train", [*keys, f"out={out}", *more]))


def trial(network, **other) -> Trial:
    circuit = memory_circuit(RotatedSurfaceCode(3), CircuitNoise.named("uniform", 0.01), 3, "X")
    values = {
        **{"network": network, "circuit": str(circuit), "seed": 5, "members": 1, "device": "cpu"},
        "tried": CANDIDATES,
    }
    return Trial(**values | other)


def test_counts_are_those_of_the_decoders(network) -> None:
    """Each candidate as a user would decode with it, by the public decoder."""
    tried = trial(network)
    circuit = stim.Circuit(tried.circuit)
    sampler = circuit.compile_detector_sampler(seed=tried.seed)
    dets, truth = sampler.sample(SHOTS_PER_PASS, separate_observables=True)
    found = count(Pass(tried, 0, SHOTS_PER_PASS))

    def errors(**options) -> np.ndarray:
        return (Decoder.from_circuit(circuit, **options).decode_batch(dets) != truth)[:, 0]

    uncorrelated, correlated = errors(), errors(correlated=True)
    decides = SpaceTimeLattice.from_circuit(circuit).sector == MEMORY

    def check(counts: Counts, own: np.ndarray, gap: float) -> None:
        assert counts.shots == SHOTS_PER_PASS
        assert counts.uncorrelated == uncorrelated.sum() > 0
        assert counts.correlated == correlated.sum()
        assert counts.errors == own.sum()
        assert counts.differ == (own != correlated).sum()
        assert counts.before == dets[:, decides].sum()
        assert (counts.fallbacks > 0) == (gap > 0)

    for counts, name in zip(found, tried.tried.named(), strict=True):
        rule = CommitRule(**name)
        own = errors(predecoder=Predecoder(network, CommitRules(rule, rule)))
        check(Counts(*counts), own, name["gap"])
    # Second looks, each as the decoder takes them.
    tried = trial(network, tried=Tried((0.5, 0.9), (0.1, 0.3), second=True))
    found = count(Pass(tried, 0, SHOTS_PER_PASS))
    for counts, name in zip(found, tried.tried.named(), strict=True):
        if name["gap"] <= name["doubt"]:
            rule = CommitRule(0.5, 0.2, second=SecondLook(0.9, name["doubt"], name["gap"]))
            own = errors(predecoder=Predecoder(network, CommitRules(rule, rule)))
            check(Counts(*counts), own, name["gap"])
    # Two looks at all shots.
    tried = trial(network, tried=CANDIDATES._replace(agree=(0.5, 0.97, 1.0)))
    found = count(Pass(tried, 0, SHOTS_PER_PASS))
    for counts, name in zip(found, tried.tried.named(), strict=True):
        rule = CommitRule(**name, agree=(0.5, 0.97, 1.0))
        decoder = Decoder.from_circuit(
            circuit, predecoder=Predecoder(network, CommitRules(rule, rule))
        )
        predecoded = decoder.predecode(dets)
        matched = decoder.match(dets.view(np.uint8), predecoded)
        check(Counts(*counts), matched.flips != truth[:, 0], 1.0)
        looks = [predecoded, *predecoded.others]
        left = [*(look.residual for look in looks), dets[matched.fell_back]]
        assert Counts(*counts).after == sum(part[:, decides].sum() for part in left)


def test_passes_do_not_depend_on_what_was_decoded_before(network) -> None:
    passes = [Pass(trial(network), start * SHOTS_PER_PASS, SHOTS_PER_PASS) for start in range(3)]
    in_order = [count(part) for part in passes]
    candidates._at_work.cache_clear()
    backwards = [count(part) for part in passes[::-1]][::-1]
    assert all(map(np.array_equal, in_order, backwards))
    assert not np.array_equal(in_order[0], in_order[1])


def test_what_decides_the_counts_is_in_their_key(network) -> None:
    other = load_predecoder("fast").network
    keys = [trial(network).key, trial(other).key]
    assert keys[0] == keys[1]
    other.head.bias.data[0] += 1
    changed = [
        *(trial(other), trial(network, seed=6), trial(network, members=3)),
        trial(network, tried=Tried((0.5,), (0.0, 0.3))),
        trial(network, tried=Tried((0.5, 0.9), (0.0, 0.4))),
        trial(network, tried=CANDIDATES._replace(second=True)),
        trial(network, tried=CANDIDATES._replace(agree=(0.97, 1.0))),
        trial(network, circuit=trial(network).circuit.replace("0.01", "0.011")),
    ]
    other = load_predecoder("fast").network
    other.active_only = False
    changed.append(trial(other))
    assert len({keys[0], *(t.key for t in changed)}) == len(changed) + 1


@pytest.mark.slow
def test_processes_and_resumption_change_nothing(tmp_path, monkeypatch, network) -> None:
    here = validation_records(network, settings(tmp_path), 0.01, CANDIDATES, FoundCounts(None))
    monkeypatch.setattr(validate, "_WORTH_A_PROCESS", 1)
    kept, two = tmp_path / "validation.jsonl", settings(tmp_path, "validation_workers=2")
    records = validation_records(network, two, 0.01, CANDIDATES, FoundCounts(kept))
    assert records == here
    lines = kept.read_text().splitlines()
    assert len(lines) == 6  # three passes of two circuits

    def not_again(part):
        raise AssertionError(f"{part.start} is decoded again")

    monkeypatch.setattr(validate, "count", not_again)
    assert validation_records(network, two, 0.01, CANDIDATES, FoundCounts(kept)) == here
    # Half a line is what a killed job leaves.
    kept.write_text("\n".join([*lines[:5], lines[5][:40]]))
    again = []
    monkeypatch.setattr(validate, "count", lambda part: again.append(part) or count(part))
    assert validation_records(network, two, 0.01, CANDIDATES, FoundCounts(kept)) == here
    assert len(again) == 1
    assert sorted(kept.read_text().splitlines()) == sorted(lines)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_stops_it_after_a_pass(tmp_path, monkeypatch, network, number) -> None:
    kept = tmp_path / "validation.jsonl"

    def signalled(part):
        os.kill(os.getpid(), number)
        return count(part)

    monkeypatch.setattr(validate, "count", signalled)
    with pytest.raises(Preempted, match=number.name):
        validation_records(network, settings(tmp_path), 0.01, CANDIDATES, FoundCounts(kept))
    assert len(FoundCounts(kept)._found) == len(kept.read_text().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "message"),
    [
        (signal.SIGTERM, PREEMPTED_STATUS, "stopped by SIGTERM during validation: run the same"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_a_stopped_command_leaves_one_line(tmp_path, number, status, message) -> None:
    command = [sys.executable, "-m", "qec.training.rules", "fast", f"out={tmp_path / 'mine'}"]
    keys = ["validation_distances=[9]", "validation_noises=[uniform]", "validation_workers=2"]
    kept = tmp_path / "mine" / "validation.jsonl"
    job = subprocess.Popen([*command, *keys], stderr=subprocess.PIPE, text=True)
    _wait_for(kept.exists)
    job.send_signal(number)
    _, said = job.communicate(timeout=600)
    assert job.returncode == status
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert kept.read_text().endswith("\n")


@pytest.mark.slow
def test_rules_are_chosen_again_from_what_was_counted(tmp_path) -> None:
    command = [
        *(sys.executable, "-m", "qec.training.rules", "fast", f"out={tmp_path / 'mine'}"),
        *("validation_distances=[3]", "validation_noises=[uniform]", "validation_shots=64"),
        *("thresholds=[0.5]", "gaps=[0.1,0.3]", "quiet_gaps=[0.3]"),
    ]
    kept, texts = tmp_path / "mine" / "validation.jsonl", []
    for density in (2, 4):
        done = subprocess.run(
            [*command, f"validation_density={density}"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        texts.append(kept.read_text())
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 4  # two bases at two noise strengths
    found = load_predecoder(tmp_path / "mine" / "mine.safetensors")
    assert found.metadata["validation_density"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["true", "false"])
def test_second_looks_on_request(tmp_path, monkeypatch, wanted) -> None:
    fast = load_predecoder("fast")
    short = ("validation_shots=64", "thresholds=[0.5,0.9]", "gaps=[0.1,0.3]")
    short += ("validation_quiet_p=null",)
    asked = settings(
        tmp_path / "mine",
        *short,
        f"second_look={wanted}",
    )
    asked.out.mkdir()

    def picked(records: list[dict], _: TrainSettings) -> choice.Choice:
        rules = (
            CommitRule(t, tuple((d, rate, gap) for d, rate in places))
            for t, gap in ((0.5, 0.1), (0.9, 0.3))
            for places in [sorted({(r["distance"], r["rate"]) for r in records})]
        )
        return choice.Choice(CommitRules(*rules), records, [], [])

    monkeypatch.setattr(choice, "pick_rules", picked)
    path = write_with_rules(fast.network, fast.metadata["model"], fast.metadata, asked)
    rules, card = load_predecoder(path).rules, path.with_suffix(".md").read_text()
    second = rules.uncorrelated.second
    ((_, rate, gap),) = rules.uncorrelated.gap
    assert (rules.uncorrelated.threshold, gap) == (0.5, 0.1)
    assert rules.correlated == CommitRule(0.9, ((3, rate, 0.3),))
    if wanted == "false":
        assert second is None
        assert "second look" not in card
        return
    (record,) = load_predecoder(path).metadata["validation_second"]
    if second is None:  # one look is as good
        assert "second look" not in card
    else:
        assert second.threshold == 0.9
        assert second.doubt == ((3, record["rate"], record["doubt"]),)
        assert second.gap == ((3, record["rate"], record["gap"]),)
        assert "after a second look (commits above 0.9) below, d=3: " in card
        assert 'Second looks: at a gap below "doubt"' in card
    # What has no second looks elsewhere is not extended with them.
    further = settings(asked.out, "validation_distances=[5]", *short)
    before = {**load_predecoder(path).metadata, "validation_second": []}
    with pytest.raises(QecError, match="no second looks at its other distances"):
        write_with_rules(fast.network, fast.metadata["model"], before, further, extend=True)


@pytest.mark.slow
def test_two_looks_on_request(tmp_path) -> None:
    fast = load_predecoder("fast")
    short = ("validation_shots=64", "thresholds=[0.5]", "gaps=[0.3]", "quiet_gaps=[0.4]")
    asked = settings(tmp_path / "mine", *short, "agree=[0.97]", "agree_correlated=[0.9,1]")
    asked.out.mkdir()
    path = write_with_rules(fast.network, fast.metadata["model"], fast.metadata, asked)
    rules = load_predecoder(path).rules
    assert (rules.uncorrelated.agree, rules.correlated.agree) == ((0.97,), (0.9, 1.0))
    assert rules.uncorrelated.second is None
    card = path.with_suffix(".md").read_text()
    for looks in ("0.97", "0.9, 1"):
        assert f"where another look (commits above {looks}) decides differently" in card


def _die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_is_named() -> None:
    with pytest.raises(QecError, match="worker process died"):
        list(results(_die, range(3), 2))


_SLEEPERS = """
import json, os, sys, time
from qec.pool import results

def sleep(folder):
    open(os.path.join(folder, str(os.getpid())), "w").close()
    time.sleep(600)

if __name__ == "__main__":
    list(results(sleep, [sys.argv[1]] * 2, 2))
"""


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path) -> None:
    script, pids = tmp_path / "sleepers.py", tmp_path / "pids"
    script.write_text(_SLEEPERS)
    pids.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(pids)])
    try:
        _wait_for(lambda: len(list(pids.iterdir())) == 2)
    finally:
        parent.kill()
        parent.wait()
    workers = [int(path.name) for path in pids.iterdir()]
    _wait_for(lambda: not any(map(_runs, workers)))


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(true) -> None:
    deadline = time.monotonic() + 600
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
