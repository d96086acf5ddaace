"""The sinter plug-in, on circuits from `stim gen`, in several worker processes."""

import pathlib
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import sinter
import stim
from training_files import quiet, trained

from qec.decoding.decoder import named_decoder
from qec.decoding.decoder_names import DECODER_NAMES, has_predecoder
from qec.predecoder.shipped import shipped_checkpoints
from qec.sinter_plugin import SinterDecoder, sinter_decoders
from qec.support.errors import QecError

P = 0.004
BIN = pathlib.Path(sys.executable).parent
PLUGIN = "qec.sinter_plugin:sinter_decoders"
OURS = ("predecoder+pymatching", "predecoder+matching-cascade")


def stim_gen(folder, task, distance, rounds):
    """A circuit file made by Stim's command line."""
    path = folder / f"{task}.stim"
    arguments = [
        *("--code", "surface_code", "--task", task),
        *("--distance", str(distance), "--rounds", str(rounds)),
        *("--after_clifford_depolarization", str(P)),
        *("--before_round_data_depolarization", str(P)),
        *("--before_measure_flip_probability", str(P)),
        *("--after_reset_flip_probability", str(P)),
    ]
    stim.main(command_line_args=["gen", *arguments, "--out", str(path)])
    return path


def test_names():
    decoders = sinter_decoders()
    assert set(OURS) | {"pymatching-correlated-css"} <= set(decoders)
    # sinter lets nobody replace its own.
    assert set(sinter.BUILT_IN_DECODERS).isdisjoint(decoders)
    tagged = [name for name in decoders if "@" in name]
    names = [name for name in DECODER_NAMES if has_predecoder(name)]
    assert len(tagged) == len(names) * len(shipped_checkpoints()) > 0


def test_decoders_pickle_small():
    for name, decoder in sinter_decoders().items():
        content = pickle.dumps(decoder)
        assert len(content) < 1000
        copy = pickle.loads(content)
        assert (copy.name, copy.predecoder) == (decoder.name, decoder.predecoder)
        assert name.endswith(decoder.name.removeprefix("predecoder"))


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("basis", ["X", "Z"])
def test_predictions_are_the_decoders(stim_circuit, basis, name):
    circuit = stim_circuit(5, 3, basis, 0.006)
    dem = circuit.detector_error_model(decompose_errors=True)
    packed = circuit.compile_detector_sampler(seed=1).sample(300, bit_packed=True)
    compiled = SinterDecoder(name, trained()).compile_decoder_for_dem(dem=dem)
    got = compiled.decode_shots_bit_packed(bit_packed_detection_event_data=packed)
    assert (got.shape, got.dtype) == ((300, 1), np.uint8)
    want = named_decoder(name, dem, trained()).decode_batch(packed, bit_packed_shots=True)
    np.testing.assert_array_equal(got, want)
    alone = named_decoder("pymatching", dem).decode_batch(packed, bit_packed_shots=True)
    assert (got != alone).any()  # the pre-decoder has a say


def test_own_checkpoints_get_names_with_their_digest(tmp_path):
    own = str(shutil.copy(quiet(), tmp_path / "own.safetensors"))
    decoders = sinter_decoders(own)
    mine = {n.partition("]")[2]: d for n, d in decoders.items() if n.startswith("predecoder[own@")}
    assert set(mine) == {name.removeprefix("predecoder") for name in DECODER_NAMES if "pre" in name}
    assert {decoder.predecoder for decoder in mine.values()} == {own}


def test_other_codes_are_refused():
    circuit = stim.Circuit.generated(
        "color_code:memory_xyz", distance=3, rounds=2, after_clifford_depolarization=0.01
    )
    dem = circuit.detector_error_model()
    with pytest.raises(QecError, match="rotated surface code"):
        SinterDecoder("predecoder+pymatching").compile_decoder_for_dem(dem=dem)


@pytest.mark.slow
def test_collect_with_two_workers(tmp_path):
    tasks = [
        sinter.Task(
            circuit=stim.Circuit.from_file(stim_gen(tmp_path, f"rotated_memory_{basis}", 5, 5)),
            json_metadata={"basis": basis},
        )
        for basis in "xz"
    ]
    stats = sinter.collect(
        num_workers=2,
        tasks=tasks,
        decoders=["pymatching", *OURS],
        custom_decoders=sinter_decoders(),
        max_shots=1500,
    )
    assert len(stats) == 6
    assert {(s.decoder, s.json_metadata["basis"]) for s in stats} == {
        (name, basis) for name in ("pymatching", *OURS) for basis in "xz"
    }
    for stat in stats:
        assert stat.shots == 1500
        # About 1 % is expected: 3 % of 1500 shots is beyond 7 sigmas, below 1e-6.
        assert stat.errors < 0.03 * stat.shots


@pytest.mark.slow
def test_sinters_command_line_finds_the_plugin(tmp_path):
    """As a user would run it: the sinter command, a file from `stim gen`, two processes."""
    circuit = stim_gen(tmp_path, "rotated_memory_z", 3, 3)
    decoders = ["pymatching-correlated-css", *OURS]
    table = tmp_path / "stats.csv"
    command = [
        *(str(BIN / "sinter"), "collect", "--circuits", str(circuit)),
        *("--decoders", *decoders),
        *("--custom_decoders_module_function", PLUGIN),
        *("--processes", "2", "--max_shots", "1000", "--quiet"),
        *("--save_resume_filepath", str(table)),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    stats = sinter.read_stats_from_csv_files(table)
    assert sorted(stat.decoder for stat in stats) == sorted(decoders)
    for stat in stats:
        assert stat.shots == 1000
        assert stat.errors < 50  # about 10 are expected: below 1e-6
