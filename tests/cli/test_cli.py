"""The command line itself, and `qec decode`."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pymatching
import pytest
import stim
from omegaconf import OmegaConf

from qec import __version__
from qec.cli.commands import COMMANDS, main
from qec.cli.config import load_config
from qec.cli.keys import SEVERAL, TEXT_KEYS
from qec.support.errors import QecError
from qec.support.files import config_file, resource_dir
from qec.support.statistics import error_rate
from qec.support.tables import rate_text


def qec(*arguments, cwd):
    command = [sys.executable, "-m", "qec.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)


def test_help_lists_the_commands_and_is_fast(tmp_path):
    """Nothing is imported that takes time."""
    program = "import sys; from qec.cli.commands import main; main(['--help']); "
    program += "assert not {'numpy', 'stim', 'torch', 'numba', 'hydra'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, command in COMMANDS.items():
        assert f"  {name}" in done.stdout
        assert command.summary in done.stdout


def test_command_help_shows_keys_and_an_example(capsys):
    assert main(["sweep", "--help"]) == 0
    text = capsys.readouterr().out
    for key in load_config("sweep"):
        assert f"\n{key}:" in text
    assert "qec sweep distance=5,9" in text


@pytest.mark.parametrize(
    "words", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_every_help_fits_a_screen(capsys, words):
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 60
    lines = [line for line in lines if not line.startswith("Keys and defaults (")]  # has a path
    assert max(map(len, lines)) <= 100


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"qec {__version__}\n"


@pytest.mark.parametrize("options", [[], ["-u"]])
def test_a_reader_that_leaves_causes_no_traceback(tmp_path, options):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, *options, "-m", "qec.cli", "--help"]
    with os.fdopen(writing, "w") as out:
        done = subprocess.run(
            command, cwd=tmp_path, stdout=out, stderr=subprocess.PIPE, text=True, timeout=600
        )
    assert done.stderr == ""


def test_the_examples_of_sweep_are_configurations():
    for example in COMMANDS["sweep"].examples:
        config = load_config("sweep", example.split()[2:])
        assert config.distance == [5, 9]
        assert config.decoders == ["pymatching", "predecoder+matching-cascade"]


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("distance=5,9,13", "distance", [5, 9, 13]),
        ("distance=5", "distance", 5),
        ("distance=[5,9]", "distance", [5, 9]),
        ("rounds=null,10", "rounds", [None, 10]),
        ("p=1e-3,2e-3", "p", [1e-3, 2e-3]),
        ("circuit=/tmp/a-b.stim,c.stim", "circuit", ["/tmp/a-b.stim", "c.stim"]),
        ("circuit=[a.stim,'b,c.stim']", "circuit", ["a.stim", "b,c.stim"]),
        ("circuit='a, b.stim'", "circuit", "a, b.stim"),
        ("predecoder=small,mine.safetensors", "predecoder", ["small", "mine.safetensors"]),
    ],
)
def test_commas_make_lists(override, key, value):
    assert load_config("sweep", [override])[key] == value


def test_lists_of_a_training_are_taken_as_typed():
    words = ["noises=random,stim", "model_of=[a-b.stim,d=3.dem]", "orders=[as-x]"]
    config = load_config("train", words)
    assert config.noises == ["random", "stim"]
    assert config.model_of == ["a-b.stim", "d=3.dem"]
    assert config.orders == ["as-x"]
    assert load_config("train").model_of is None


TYPED = ["2026_07_06", "1.10", "1e5", "01", "true", "d=3,p=0.006,b=Z.stim", "x(1).stim", "[a]"]
TYPED += ["{b}", "µs.stim", "a#b~c&d.stim", "a b", "~/x", "x@y", "'quoted'.01", "-", "a: b", "*"]


def test_paths_and_names_are_taken_as_typed():
    keys = ("circuit", "dets", "obs", "out", "out_format", "predecoder")
    for k, text in enumerate(TYPED):
        given = {keys[j]: TYPED[(k + j) % len(TYPED)] for j in range(len(keys))}
        config = load_config("decode", [f"{key}={value}" for key, value in given.items()])
        assert {key: config[key] for key in keys} == given, text


def test_paths_in_quotes_and_null():
    config = load_config("decode", ["out='1.10'", 'dets="null"', "obs=null", "circuit=None"])
    assert (config.out, config.dets, config.obs, config.circuit) == ("1.10", "null", None, None)


def test_files_whose_names_hold_commas_are_found_in_lists(tmp_path, monkeypatch):
    """As sinter's --metadata_func auto reads them."""
    monkeypatch.chdir(tmp_path)
    names = ["d=3,p=0.006,b=Z.stim", "d=5,p=0.006,b=Z.stim", "plain.stim", "[odd].stim"]
    for name in names:
        (tmp_path / name).touch()
        assert load_config("sweep", [f"circuit={name}"]).circuit == name
    assert load_config("sweep", [f"circuit={','.join(names)}"]).circuit == names
    assert load_config("sweep", [f"circuit=[{names[0]}]"]).circuit == names[:1]


def test_every_key_of_paths_and_names_exists():
    files = [path.stem for path in resource_dir("conf").glob("*.yaml")]
    keys = {name: set(OmegaConf.load(config_file(name))) for name in files}
    assert set().union(*keys.values()) >= TEXT_KEYS
    for name, several in SEVERAL.items():
        assert several <= keys[name] & TEXT_KEYS


@pytest.mark.parametrize(
    ("command", "word", "message"),
    [
        ("sweep", "max_shots=range(1,1000000000)", "range(...) is not supported: write the values"),
        ("sweep", "p=[0.1,choice(0.2,0.3)]", "choice(...) is not supported"),
        ("sweep", "distance=shuffle(3,5)", "shuffle(...) is not supported"),
        ("sweep", "distance=glob(*)", "glob(...) is not supported"),
        ("sweep", "distance=" + "[" * 3000, "more than 8 opening brackets"),
        ("sweep", "max_shots=" + "9" * 5000, "cannot read 'max_shots=99"),
        ("sweep", "distnace=5", "sweep has no key 'distnace': did you mean distance?"),
        ("train", "lr=0.1", "train has no key 'lr': did you mean muon_lr or adamw_lr?"),
        ("sweep", "distance=4", "distance=4 is not supported: use an odd integer >= 3"),
        ("sweep", "rounds=0", "rounds=0 is not supported: use an integer >= 1, or null"),
        ("sweep", "basis=Y", "basis='Y' is not supported: use X or Z"),
        ("sweep", "noise=unifrom", "noise='unifrom' is unknown: use one of uniform, stim, si1000"),
        ("sweep", "orientation=ZZ", "orientation='ZZ' is unknown"),
        ("sweep", "decoders=[pymatchin]", "decoder 'pymatchin' is unknown"),
        ("sweep", "decoders=[predecoder+pymatching-nofallback]", "is gone: predecoder+pymatching"),
        ("decode", "decoder={a: 1}", "is nested: give one value"),
        ("sweep", "max_shots=many", "max_shots='many' is not supported: use a number"),
        ("sweep", "merge=yes", "merge='yes' is not supported: use true or false"),
        ("train", "muon_lr=x", "muon_lr='x' is not supported: use a number"),
        ("train", "tf32=1", "tf32=1 is not supported: use true or false"),
        ("train", "noises=pink", "noise='pink' is unknown: use one of uniform, stim, si1000"),
        ("realtime", "period_us=min", "period_us='min' is not supported"),
        ("sweep", "out=${nowhere}", "cannot be configured"),
        ("sweep", "p@x=0.1", "cannot be added, removed or moved"),
        ("sweep", "p=" + "9" * 400, "use a number below 2"),
        ("train", "muon_lr=" + "9" * 400, "use a number below 2"),
    ],
)
def test_values_that_no_command_could_use_are_refused(command, word, message):
    with pytest.raises(QecError) as error:
        load_config(command, [word])
    assert message in str(error.value)
    assert len(str(error.value)) < 1000


SLIPS = {
    "swep": "there is no command 'swep'",
    "sweep distance=4": "distance=4 is not supported",
    "sweep columns=many": "columns='many' is not supported: use main or all",
    "sweep max_shots=0": "max_shots=0 is not supported: use an integer >= 1",
    "sweep batch=1.5": "batch=1.5 is not supported",
    "sweep num_workers=0": "num_workers=0 is not supported",
    "sweep p=2": "p=2 is outside [0, 1]",
    "sweep out=null": "out is empty: give out=PATH",
    "sweep circuit=nowhere.stim": "there is no file nowhere.stim",
    "sweep noise=nowhere.yaml": "there is no file nowhere.yaml",
    "sweep predecoder=standard,nowhere": "no pre-decoder checkpoint 'nowhere'",
    "draw distance=4": "distance=4 is not supported",
    "completion shell=fish": "shell=fish is not supported",
    "decode": "circuit is empty: give circuit=PATH",
    "decode decoder=foo": "decoder 'foo' is unknown",
    "decode circuit=nowhere.stim dets=nowhere.b8": "there is no file nowhere.stim",
    "learn-noise dets=nowhere.b8": "structure is empty: give structure=PATH",
    "train batch=65": "batch=65 is not supported: use a positive multiple of 64",
    "evaluate predecoder=null": "no pre-decoder checkpoint 'None'",
    "realtime shots=0": "shots=0 is not supported",
    "calibrate rounds=0": "rounds=0 is not supported",
    "export basis=Y": "basis='Y' is not supported",
    "export-tensorrt": "there is no file out/export/predecoder.onnx",
    "benchmark decoders=[pymatchin]": "decoder 'pymatchin' is unknown",
    "benchmark-backends batches=0": "batches=0 is not supported",
    "benchmark-windows noise=pink": "noise='pink' is unknown",
    "benchmark-window-speed distance=x": "distance='x' is not supported",
    "benchmark-weights draws=0": "draws=0 is not supported",
    "benchmark-drift look=0": "look=0 is not supported",
    "paper-factors": "evaluation is empty: give evaluation=PATH",
}


def test_slips_are_answered_before_anything_heavy_is_imported(tmp_path):
    assert {line.split()[0] for line in SLIPS} >= {*COMMANDS}
    code = (
        "import sys; from qec.cli.commands import main\n"
        "for line in sys.argv[1:]:\n"
        "    assert main(line.split()) == 2, line\n"
        "heavy = {'torch', 'sinter', 'matplotlib', 'numba', 'pymatching'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *SLIPS], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for line, message in zip(done.stderr.splitlines(), SLIPS.values(), strict=True):
        assert line.startswith(f"qec: error: {message}")


def test_the_last_value_of_a_key_counts():
    """Batch scripts put their defaults in front of what they are given."""
    assert load_config("sweep", ["array_tasks=6", "p=0.1", "array_tasks=8"]).array_tasks == 8


def test_unknown_command(capsys):
    assert main(["swep"]) == 2
    assert "no command 'swep': did you mean sweep?" in capsys.readouterr().err


def test_one_real_process_refuses_bad_input(tmp_path):
    done = qec("sweep", "distance=4", "decoders=[pymatching]", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("qec: error: distance=4")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_says_how_to_resume(tmp_path):
    command = [sys.executable, "-m", "qec.cli", "sweep", "distance=5", "basis=X", "out=out"]
    command += ["max_shots=100000000", "decoders=[pymatching]"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    collected = tmp_path / "out" / "collected.csv"
    deadline = time.monotonic() + 600
    while not (collected.exists() and collected.read_text().count("\n") > 2):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "run the same command again to resume" in error
    assert sorted(p.name for p in collected.parent.iterdir()) == [
        "collected.csv",
        "collected.seeds",
    ]


# qec decode --------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Files of a small experiment in the working folder; returns (circuit, events, flips)."""
    monkeypatch.chdir(tmp_path)
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_x",
        distance=3,
        rounds=3,
        after_clifford_depolarization=0.02,
        before_measure_flip_probability=0.02,
    )
    circuit.to_file("memory.stim")
    circuit.detector_error_model(decompose_errors=True).to_file("memory.dem")
    events, flips = circuit.compile_detector_sampler(seed=5).sample(640, separate_observables=True)
    for fmt in ("01", "b8", "r8", "ptb64", "hits", "dets"):
        stim.write_shot_data_file(
            data=events, path=f"events.{fmt}", format=fmt, num_detectors=events.shape[1]
        )
    stim.write_shot_data_file(data=flips, path="flips.01", format="01", num_observables=1)
    return circuit, events, flips


@pytest.mark.parametrize("fmt", ["01", "b8", "r8", "ptb64", "hits", "dets"])
@pytest.mark.parametrize("circuit", ["memory.stim", "memory.dem"])
def test_decode_in_every_format(data, capsys, fmt, circuit):
    _, events, flips = data
    arguments = [f"circuit={circuit}", f"dets=events.{fmt}", "obs=flips.01"]
    assert main(["decode", *arguments, "decoder=pymatching", f"out=sub/pred.{fmt}"]) == 0
    predictions = stim.read_shot_data_file(path=f"sub/pred.{fmt}", format=fmt, num_observables=1)
    dem = stim.DetectorErrorModel.from_file("memory.dem")
    want = pymatching.Matching(dem).decode_batch(events)
    np.testing.assert_array_equal(predictions, want)
    errors = np.count_nonzero(want != flips)
    rate = rate_text(error_rate(errors, 640))
    assert f"{errors} logical errors, {rate} per shot" in capsys.readouterr().out


def test_decode_with_appended_observables(data, capsys):
    _, events, flips = data
    stim.write_shot_data_file(
        data=np.hstack([events, flips]),
        path="both.dets",
        format="dets",
        num_detectors=events.shape[1],
        num_observables=1,
    )
    base = ["decode", "circuit=memory.stim", "decoder=pymatching"]
    assert main([*base, "dets=both.dets", "append_observables=true", "out=a.01"]) == 0
    appended = capsys.readouterr().out.splitlines()[1]
    assert main([*base, "dets=events.b8", "obs=flips.01", "out=b.01"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == appended


@pytest.mark.parametrize("name", ["memory.stim", "memory.dem"])
def test_decode_with_a_model_of_unknown_kind(data, capsys, monkeypatch, name):
    base = ["decode", "decoder=pymatching", "dets=events.b8", "obs=flips.01", "out=p.01"]
    main([*base, f"circuit={name}"])
    want = capsys.readouterr().out
    os.rename(name, "memory.txt")
    assert main([*base, "circuit=memory.txt"]) == 0
    assert capsys.readouterr().out == want
    with open("memory.txt") as file:
        monkeypatch.setattr("sys.stdin", file)
        assert main([*base, "circuit=-"]) == 0
    assert capsys.readouterr().out == want


def test_decode_from_standard_input(data, capsys, monkeypatch):
    base = ["decode", "circuit=memory.stim", "decoder=pymatching", "obs=flips.01", "out=p.01"]
    main([*base, "dets=events.b8"])
    want = capsys.readouterr().out
    with open("events.b8") as file:
        monkeypatch.setattr("sys.stdin", file)
        assert main([*base, "dets=-", "dets_format=b8"]) == 0
    assert capsys.readouterr().out == want
    assert main([*base, "dets=-"]) == 2
    assert "set it by hand" in capsys.readouterr().err


def test_bad_data_is_refused_and_nothing_written(data, tmp_path, capsys):
    (tmp_path / "cut.b8").write_bytes((tmp_path / "events.b8").read_bytes()[:-1])
    (tmp_path / "broken.stim").write_text("FOO 1\n")
    (tmp_path / "empty.01").write_text("")
    (tmp_path / "few.01").write_text("0\n1\n")
    (tmp_path / "none.dem").write_text("error(0.1) D0\n")
    (tmp_path / "two.dem").write_text("error(0.1) D24 L1\n")
    (tmp_path / "two.stim").write_text(f"{data[0]}\nOBSERVABLE_INCLUDE(1) rec[-1]\n")
    (tmp_path / "short.dem").write_text("error(0.1) D20 L0\n")
    (tmp_path / "ones.b8").write_bytes(bytes([255] * 12))
    before = sorted(p.name for p in tmp_path.iterdir())
    good = {"circuit": "memory.stim", "dets": "events.b8", "decoder": "pymatching"}
    for change, message in (
        ({"dets": "cut.b8"}, "does not hold 24 bits per shot"),
        ({"dets": "events.01", "append_observables": "true"}, "hold 25 bits per shot"),
        ({"dets": "nowhere.b8"}, "there is no file nowhere.b8"),
        ({"dets": "empty.01"}, "holds no shots"),
        ({"dets": "memory.stim"}, "format 'stim' is unknown"),
        ({"circuit": "broken.stim"}, "is not a Stim circuit"),
        ({"circuit": "events.b8"}, "events.b8 is not a text file"),
        ({"circuit": "events.01"}, "not a Stim circuit: "),
        ({"circuit": "events.01"}, "; not a detector error model: "),
        ({"circuit": "none.dem"}, "none.dem has 1 detectors and 0 observables"),
        ({"circuit": "two.dem", "obs": "flips.01"}, "two.dem has 25 detectors and 2 observables"),
        ({"circuit": "null"}, "circuit is empty: give circuit=PATH"),
        ({"dets": "ones.b8", "circuit": "two.stim"}, "2 observables"),
        ({"dets": "ones.b8", "circuit": "short.dem"}, "not hold 21 bits per shot (21 detectors)"),
        ({"append_observables": "banana"}, "append_observables='banana' is not supported"),
        ({"decoder": "predecoder+pymatching", "predecoder": "nope", "out": "new/p.01"}, "nope"),
        ({"decoder": "foo", "out": "new/dir/p.01"}, "foo"),
        ({"out": "null"}, "out is empty: give out=PATH"),
        ({"circuit": "nowhere.dem"}, "there is no file nowhere.dem"),
        ({"obs": "events.hits", "obs_format": "01"}, "does not hold 1 bits per shot"),
        ({"obs": "events.b8"}, "events.b8 does not hold 1 bits per shot"),
        ({"obs": "few.01"}, "few.01 holds 2 shots, but events.b8 holds 640 at 24 bits per shot"),
        ({"decoder": "foo"}, "foo"),
        ({"out": "p.xyz"}, "format 'xyz' is unknown"),
        ({"out": "memory.stim/p.01"}, "cannot write to the folder memory.stim"),
        ({"dets": "???"}, "dets is empty: give dets=PATH"),
        ({"dets": "null"}, "dets is empty: give dets=PATH"),
    ):
        arguments = [f"{key}={value}" for key, value in (good | change).items()]
        assert main(["decode", *arguments]) == 2, change
        error = capsys.readouterr().err
        assert error.startswith("qec: error: ")
        assert message in error, error
        assert error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before
