"""The rows of collected.csv, in the format of sinter; every number is checked when it is read."""

from __future__ import annotations

import collections
import csv
import io
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import sinter

from qec.support.errors import QecError, first_line
from qec.support.journal import append_text, keep

_LARGEST = 2**63  # counts are below


def read_collected(path: Path, *, repair: bool = True) -> dict[str, sinter.TaskStats]:
    """Rows of an earlier run by task, added up.

    A line that a killed job left unfinished is passed over: its shots are sampled again.  With
    ``repair`` it is dropped from the file, which nobody else may be writing to then.

    Raises:
        QecError: a file that cannot be read, whose columns are not sinter's, or with a row that
            cannot be right; the message names its line.
    """
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if sinter.CSV_HEADER.startswith(text):  # empty, or killed in the header
            whole = sinter.CSV_HEADER + "\n"
        if _columns(whole) != _columns(sinter.CSV_HEADER):
            raise ValueError("its columns are not those of sinter")
        found = added(_rows(whole))
    except (ValueError, OSError, csv.Error) as error:
        raise QecError(
            f"{path} cannot be resumed ({first_line(error)}): repair or delete it, or choose "
            "another out=."
        ) from error
    if repair and whole != text:
        keep(path, whole)
    return found


def check_metadata(found: Mapping[str, sinter.TaskStats], tasks: Iterable[sinter.Task]) -> None:
    """QecError unless the rows of these tasks say of themselves what the tasks say."""
    for task in tasks:
        row = found.get(task.strong_id())
        if row is not None and row.json_metadata != task.json_metadata:
            raise QecError(
                f"the rows with strong_id {row.strong_id} have damaged metadata "
                f"({row.json_metadata} for {task.json_metadata}): remove them, or choose another "
                "out=."
            )


def append_row(path: Path, row: sinter.TaskStats) -> None:
    """Adds a line at the end; QecError if it cannot be written."""
    append_text(path, row.to_csv_line() + "\n")


def added(*parts: Iterable[sinter.TaskStats]) -> dict[str, sinter.TaskStats]:
    """Statistics by strong id, added up by sinter where several have the same."""
    total: dict[str, sinter.TaskStats] = {}
    for stat in itertools.chain(*parts):
        known = total.get(stat.strong_id)
        total[stat.strong_id] = stat if known is None else known + stat
    return total


def _columns(text: str) -> list[str]:
    return [name.strip() for name in text.partition("\n")[0].split(",")]


def _rows(text: str) -> Iterator[sinter.TaskStats]:
    """The rows below the header; ValueError names the line of one that cannot be right."""
    reader = csv.reader(io.StringIO(text), strict=True)
    header = [name.strip() for name in next(reader)]
    metadata: dict[str, object] = {}
    for cells in reader:
        try:
            row = _row(dict(zip(header, cells, strict=True)))
            if metadata.setdefault(row.strong_id, row.json_metadata) != row.json_metadata:
                raise ValueError("another row of the same strong_id has other metadata")
            yield row
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"line {reader.line_num}: {first_line(error)}") from error


def _row(cells: Mapping[str, str]) -> sinter.TaskStats:
    shots = _count("shots", int(cells["shots"]))
    seconds = float(cells["seconds"])
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds={seconds} is no time")
    metadata = json.loads(cells["json_metadata"])
    custom = json.loads(cells["custom_counts"] or "{}")
    if not isinstance(custom, dict):
        raise ValueError("custom_counts must be a JSON object")
    for name, value in custom.items():
        _count(name, value, shots if name.startswith(("errors:", "both:", "fallbacks:")) else None)
    errors, discards = (_count(name, int(cells[name]), shots) for name in ("errors", "discards"))
    _count("errors + discards", errors + discards, shots)
    row = sinter.TaskStats(
        strong_id=cells["strong_id"],
        decoder=cells["decoder"],
        json_metadata=metadata,
        shots=shots,
        errors=errors,
        discards=discards,
        seconds=seconds,
        custom_counts=collections.Counter(custom),
    )
    if isinstance(metadata, dict) and "decoders" in metadata:
        _check_decoders(row)
    return row


def _count(name: str, value: object, most: int | None = None) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise ValueError(f"{name}={value!r} is no count")
    if most is not None and value > most:
        raise ValueError(f"{name}={value} of {most} shots")
    return value


def _check_decoders(row: sinter.TaskStats) -> None:
    """ValueError unless the counts of the decoders that a row tells of go together."""
    names, counts = row.json_metadata["decoders"], row.custom_counts
    baselines = row.json_metadata.get("baselines") or names[:1] * len(names)
    for name, baseline in zip(names, baselines, strict=True):
        # sinter leaves out counts that are 0, which times never are.
        for count in ("match_ns", "predecode_ns"):
            if row.shots and f"{count}:{name}" not in counts:
                raise ValueError(f"there is no {count}:{name}")
        both, errors = counts[f"both:{name}"], counts[f"errors:{name}"]
        if both > min(errors, counts[f"errors:{baseline}"]):
            raise ValueError(f"both:{name}={both} is more than the errors of one of the two")
    if (first := counts[f"errors:{names[0]}"]) != row.errors:
        raise ValueError(f"errors={row.errors}, but errors:{names[0]}={first}")
