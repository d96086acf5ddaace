"""The pages of docs/: they build without a warning, and what they tell a reader to run does run."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.M | re.S)
RUN = [page for page in PAGES if BLOCK.search(page.read_text())]  # README: test_readme.py


def environment():
    here = pathlib.Path(sys.executable).parent
    return os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path]
    settings = environment() | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not re.search("warning", done.stderr, re.I), done.stderr
    for page in PAGES:
        name = page.relative_to(ROOT / "docs").with_suffix("")
        assert (tmp_path / ("" if name.stem == "index" else name) / "index.html").is_file()
    api = (tmp_path / "api/index.html").read_text()
    assert "qec.windows.window_decoder.WindowDecoder" in api
    commands = re.sub("<.*?>", "", (tmp_path / "commands/index.html").read_text())
    assert "qec learn-noise structure=memory.stim" in commands


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_blocks_of_a_page_run_one_after_the_other(page, tmp_path):
    """Shell and Python blocks, in one folder; what they write is there for the next."""
    for language, block in BLOCK.findall(page.read_text()):
        command = ["bash", "-euo", "pipefail"] if language == "sh" else [sys.executable]
        done = subprocess.run(
            [*command, "-c", block],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, block + done.stdout + done.stderr


def test_pictures_are_there_and_small():
    for page in [ROOT / "README.md", *PAGES]:
        for name in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text()):
            assert 0 < (page.parent / name).stat().st_size <= 200_000, (page, name)


def test_lines_of_prose_are_not_long_sentences():
    """At most 25 words a sentence on the pages that are written for newcomers."""
    for name in ("index", "tutorial", "concepts", "my-data", "my-device", "realtime", "export"):
        text = (ROOT / f"docs/{name}.md").read_text()
        prose = re.sub(r"```.*?```|^\|.*$|^#.*$|^!\[.*$|`[^`]*`", "", text, flags=re.S | re.M)
        for sentence in re.split(r"[.:;?]\s|\n\n|\n(?=[-\d])", prose):
            assert len(sentence.split()) <= 25, (name, sentence)
