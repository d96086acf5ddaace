"""Pages that mkdocs makes itself: the commands from conf/, the modules from their docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from qec.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
LAYERS = (
    *("circuits", "matching", "predecoder", "decoding", "windows", "evaluation", "calibration"),
    *("noise_learning", "training", "export", "realtime", "benchmarks", "cli", "support"),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds commands.md and api.md."""
    for name, text in {"commands.md": _commands(), "api.md": _api()}.items():
        files.append(File.generated(config, name, content=text))
    return files


def _commands() -> str:
    """A section per command: what it is for, examples, and its file of conf/."""
    parts = ["# Commands", "`qec COMMAND key=value ...`; a comma makes a list: `distance=5,9`."]
    for name, command in COMMANDS.items():
        keys = ROOT / "conf" / f"{command.keys or name}.yaml"
        summary = command.summary[0].upper() + command.summary[1:]
        parts += [f"## qec {name}", f"{summary}.", _code("sh", "\n".join(command.examples))]
        if keys.is_file():
            parts.append(_code("yaml", keys.read_text().rstrip()))
    return "\n\n".join(parts) + "\n"


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _api() -> str:
    """A section per folder of the package, with its modules that have public names."""
    parts = ["# API", "`import qec` gives the names of the first section.", "## qec"]
    parts += ["::: qec.sinter_plugin"]
    for folder in LAYERS:
        parts.append(f"## qec.{folder}")
        parts.append(ast.get_docstring(ast.parse((ROOT / f"qec/{folder}/__init__.py").read_text())))
        for path in sorted((ROOT / "qec" / folder).glob("[!_]*.py")):
            parts.append(f"::: qec.{folder}.{path.stem}")
    return "\n\n".join(parts) + "\n"
