"""What is built and installed: the wheel by itself, made from the sdist, in an environment anew."""

import os
import pathlib
import shutil
import site
import subprocess
import sys
import tarfile
import tomllib
import venv

import pytest

import qec

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TAG = f"{PROJECT['name'].replace('-', '_')}-{qec.__version__}"


def run(*command, cwd):
    """Its output, without what leads Python to this checkout."""
    own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of programs of an environment with the wheel; other packages are those of here."""
    folder = tmp_path_factory.mktemp("package")
    build = (sys.executable, "-m", "hatchling", "build", "-d", folder, "-t")
    # Of a copy: git's ignored files, and what other tests write, stay out.
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "out", "__pycache__"))
    run(*build, "sdist", cwd=source)
    with tarfile.open(folder / f"{TAG}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    run(*build, "wheel", cwd=folder / TAG)
    venv.create(folder / "new", symlinks=True)
    programs = folder / "new/bin"
    wheel = folder / f"{TAG}-py3-none-any.whl"
    options = ("--no-deps", "--no-index", "--quiet", wheel)
    run(sys.executable, "-m", "pip", "--python", programs / "python3", "install", *options, cwd="/")
    (packages,) = (folder / "new").glob("lib/python*/site-packages")
    # Of a path in a .pth file no further .pth files are read: editable installs stay behind.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    return programs


@pytest.mark.slow
def test_the_wheel_works_without_the_checkout(installed, tmp_path):
    python, command = installed / "python3", installed / "qec"
    where = pathlib.Path(run(python, "-c", "import qec; print(qec.__file__)", cwd=tmp_path).strip())
    assert where.is_relative_to(installed.parent)
    assert run(command, "--version", cwd=tmp_path) == f"qec {qec.__version__}\n"
    found = f"import importlib.metadata as m; print(m.version({PROJECT['name']!r}))"
    assert run(python, "-c", found, cwd=tmp_path).strip() == qec.__version__
    grid = ("distance=3", "p=0.02", "basis=X", "max_shots=300", "num_workers=1")
    run(command, "sweep", *grid, "decoders=[pymatching,pymatching-css]", "out=swept", cwd=tmp_path)
    assert (tmp_path / "swept/collected.csv").exists()
    circuit = stim_memory(tmp_path)
    sampled = circuit.compile_detector_sampler(seed=1)
    sampled.sample_write(50, filepath=str(tmp_path / "events.01"), format="01")
    run(command, "decode", "circuit=memory.stim", "dets=events.01", "out=found.01", cwd=tmp_path)
    assert len((tmp_path / "found.01").read_text().split()) == 50


def stim_memory(folder):
    import stim

    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_x", distance=3, rounds=2, after_clifford_depolarization=0.01
    )
    circuit.to_file(folder / "memory.stim")
    return circuit


def test_names():
    """`qec` on PyPI is a stranger's; extras name the distribution, hints packages of PyPI."""
    assert PROJECT["name"] != "qec"
    assert list(PROJECT["scripts"]) == ["qec"]
    for extra in PROJECT["optional-dependencies"].values():
        assert not [name for name in extra if name.startswith("qec[")]
    for path in [ROOT / "README.md", *ROOT.glob("*/*.md"), *ROOT.glob("qec/**/*.py")]:
        text = path.read_text()
        assert "qec[" not in text.replace("predecoder[", ""), path
        assert "pip install qec" not in text.replace("pip install qec-predecoder", ""), path
