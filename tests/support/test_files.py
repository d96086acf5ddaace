"""Files as they are written: whole or not at all, and what stands at their path already."""

import errno
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
import stim
from safetensors import SafetensorError

from qec.circuits.stim_files import write_predictions
from qec.cli.commands import main
from qec.support.errors import QecError
from qec.support.files import atomic_path, make_place

FULL = os.strerror(errno.ENOSPC)


def write(path: Path, text: str = "new") -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def test_a_file_is_replaced_once_it_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        assert temporary.suffix == path.suffix  # writers choose a format by it
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    path, link = tmp_path / "real" / "a.txt", tmp_path / "link.txt"
    link.symlink_to(path)
    for _ in range(2):  # at first there is nothing at its end
        write(link)
        assert link.is_symlink()
        assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()), daemon=True)
    reader.start()
    write(pipe, "events")
    reader.join(timeout=30)
    assert got == ["events"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.fixture
def full(tmp_path):
    """A device on which nothing fits; root, who could replace that of the system, gets its own."""
    if os.geteuid():
        return Path("/dev/full")
    node = tmp_path / "full.01"
    try:
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
    except PermissionError:
        pytest.skip("this root may make no devices")
    return node


def test_a_device_is_written_to(full):
    with pytest.raises(QecError, match=f"cannot write {full}: {FULL}"):
        write(full)
    assert stat.S_ISCHR(full.stat().st_mode)


def test_standard_output_is_written_to(capfdbinary):
    write(Path("-"))
    assert capfdbinary.readouterr().out == b"new"
    assert not Path("-").exists()


def raised(error: Exception):
    raise error


@pytest.mark.parametrize(
    "writes",
    [
        lambda path: raised(OSError(errno.ENOSPC, FULL)),
        lambda path: raised(SafetensorError(f"I/O error: {FULL} (os error 28)")),
        lambda path: raised(RuntimeError(f"failed: {FULL}")),
    ],
)
def test_write_errors_of_every_type_are_one_line(tmp_path, writes):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            writes(temporary)

    with pytest.raises(QecError, match=rf"cannot write {path}: {FULL}\."):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_pass_and_leave_nothing(tmp_path):
    def fail(error):
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise error

    for error in (ZeroDivisionError("division"), QecError("input"), KeyboardInterrupt("stop")):
        with pytest.raises(type(error), match=f"^{error}$"):
            fail(error)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["no/such/folder/a.txt", "x" * 300, "folder"])
def test_places_that_no_file_can_have(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(QecError, match="cannot write"):
        write(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_place_of_a_file_is_made_or_refused(tmp_path):
    make_place(tmp_path / "a" / "b" / "c.txt")
    assert (tmp_path / "a" / "b").is_dir()
    with pytest.raises(QecError, match="is a folder: give the path of a file"):
        make_place(tmp_path / "a")
    with pytest.raises(QecError, match="cannot write to the folder"):
        make_place(Path("/dev/null/a.txt"))
    make_place(Path("/dev/stdout"))
    make_place(Path("-"))


@pytest.mark.parametrize("fmt", ["01", "b8", "r8", "ptb64", "hits", "dets"])
def test_predictions_that_did_not_fit_on_the_disk(tmp_path, monkeypatch, fmt):
    """Stim's writer leaves out what does not fit, and says nothing."""
    whole = stim.write_shot_data_file

    def half(*, path: Path, **rest: object) -> None:
        whole(path=path, **rest)
        os.truncate(path, path.stat().st_size // 2)

    predictions = np.arange(256, dtype=np.uint8)[:, None] % 2
    write_predictions(predictions, tmp_path / "whole", fmt)
    monkeypatch.setattr(stim, "write_shot_data_file", half)
    with pytest.raises(QecError, match=f"half: {FULL}"):
        write_predictions(predictions, tmp_path / "half", fmt)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


# qec decode --------------------------------------------------------------------------------------


@pytest.fixture
def experiment(tmp_path, monkeypatch, stim_circuit):
    """Files m.stim and e.b8 in the working folder; arguments of ``qec decode``."""
    monkeypatch.chdir(tmp_path)
    circuit = stim_circuit(3, 3, "X", 0.01)
    circuit.to_file("m.stim")
    circuit.compile_detector_sampler(seed=3).sample_write(64, filepath="e.b8", format="b8")
    return ["decode", "circuit=m.stim", "dets=e.b8", "decoder=pymatching-css"]


def test_decode_writes_to_links_and_to_standard_output(experiment, tmp_path, capfdbinary):
    assert main([*experiment, "out=p.01"]) == 0
    (tmp_path / "link.01").symlink_to("linked.01")
    assert main([*experiment, "out=link.01"]) == 0
    capfdbinary.readouterr()
    assert main([*experiment, "out=-", "out_format=01"]) == 0
    out, error = capfdbinary.readouterr()
    want = (tmp_path / "p.01").read_bytes()
    assert out == (tmp_path / "linked.01").read_bytes() == want
    assert error == b"-: predictions of pymatching-css for 64 shots\n"


def test_decode_reads_pipes(experiment, tmp_path):
    os.mkfifo("pipe")
    writer = threading.Thread(
        target=lambda: Path("pipe").write_bytes(Path("e.b8").read_bytes()), daemon=True
    )
    assert main([*experiment, "out=p.01"]) == 0
    writer.start()
    assert main([*experiment, "dets=pipe", "dets_format=b8", "out=piped.01"]) == 0
    writer.join(timeout=30)
    assert (tmp_path / "piped.01").read_bytes() == (tmp_path / "p.01").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["dets=nope.b8"], "there is no file nope.b8."),
        (["dets=.", "dets_format=b8"], "cannot read .: Is a directory."),
        (["dets=m.stim/x.b8"], "cannot read m.stim/x.b8: Not a directory."),
        (["circuit=nope.stim"], "there is no file nope.stim."),
        (["circuit=."], "cannot read .: Is a directory."),
        (["out=.", "out_format=01"], ". is a folder: give the path of a file."),
        ([f"predecoder={'x' * 5000}.safetensors", "decoder=predecoder+pymatching"], "no pre-dec"),
    ],
)
def test_files_that_are_not_there(experiment, tmp_path, capsys, change, message):
    before = sorted(tmp_path.iterdir())
    assert main([*experiment, *change]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"qec: error: {message}")
    assert sorted(tmp_path.iterdir()) == before


def test_decode_says_that_the_disk_is_full(experiment, full, capsys):
    assert main([*experiment, f"out={full}", "out_format=01"]) == 2
    assert capsys.readouterr().err == f"qec: error: cannot write {full}: {FULL}.\n"


def test_a_file_called_as_sinter_calls_it(experiment, tmp_path):
    os.rename("m.stim", "d=3,p=0.006,b=Z.stim")
    assert main([*experiment, "circuit=d=3,p=0.006,b=Z.stim", "out=1.10", "out_format=01"]) == 0
    assert (tmp_path / "1.10").is_file()
