"""Tables, printed or as Markdown, and the text of the numbers in them."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Generic, TextIO, TypeVar

from qec.support.statistics import Estimate

Row = TypeVar("Row")

WIDTH = 100
"""Characters that a printed table takes at most, as long as its numbers leave room."""

_GAP = "  "
_NARROWEST = 10  # of names that are folded


@dataclasses.dataclass(frozen=True)
class Column(Generic[Row]):
    """A column of a table.

    Attributes:
        head: may have several lines.
        cell: the text for a row.
        name: whether it holds names, on the left and folded where they are too long; numbers stand
            on the right and are never cut.
    """

    head: str
    cell: Callable[[Row], str]
    name: bool = False


def print_table(
    columns: Sequence[Column[Row]],
    rows: Sequence[Row],
    title: str = "",
    *,
    width: int | None = WIDTH,
    file: TextIO | None = None,
) -> None:
    """Prints ``text_table`` between its title and an empty line."""
    print(*filter(None, [title]), text_table(columns, rows, width), "", sep="\n", file=file)


def text_table(
    columns: Sequence[Column[Row]], rows: Sequence[Row], width: int | None = WIDTH
) -> str:
    """Heads, a rule and a line or more for each row, in ASCII but for what the cells hold.

    Args:
        columns: from left to right.
        rows: what the columns' cells are made of.
        width: names are folded to keep to it; None: as wide as it comes.
    """
    cells = [[column.head, *map(column.cell, rows)] for column in columns]
    widths = [max(len(line) for cell in found for line in cell.split("\n")) for found in cells]
    excess = 0 if width is None else sum(widths) + len(_GAP) * (len(widths) - 1) - width
    names = [k for k, column in enumerate(columns) if column.name]
    for _ in range(excess):
        widest = max(names, key=widths.__getitem__, default=None)
        if widest is not None and widths[widest] > _NARROWEST:
            widths[widest] -= 1
    for k in names:
        cells[k] = [_folded(cell, widths[k]) for cell in cells[k]]
    head, *body = ([cell.split("\n") for cell in line] for line in zip(*cells, strict=True))
    tallest = max(map(len, head))
    head = [[""] * (tallest - len(lines)) + lines for lines in head]
    lines = []
    for row in (head, [["-" * size] for size in widths], *body):
        for texts in itertools.zip_longest(*row, fillvalue=""):
            placed = (
                text.ljust(size) if column.name else text.rjust(size)
                for text, size, column in zip(texts, widths, columns, strict=True)
            )
            lines.append(_GAP.join(placed).rstrip())
    return "\n".join(lines)


def _folded(text: str, width: int) -> str:
    """Lines of a name, cut behind a plus or another sign, the later ones indented."""
    if len(text) <= width or "\n" in text:
        return text
    size = width - 2
    parts = rf".{{1,{size}}}$|.{{0,{size - 1}}}\+|.{{0,{size - 1}}}[-_/, ]|.{{1,{size}}}"
    return "\n  ".join(re.findall(parts, text))


def markdown_table(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> str:
    """The same in Markdown, a line each."""
    heads = [column.head.replace("\n", " ") for column in columns]
    lines = [heads, ["---"] * len(heads), *([c.cell(row) for c in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# Numbers -----------------------------------------------------------------------------------------


def three_digits(x: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{x:.3g}" if x < 999.5 else f"{x:.0f}"


def scientific(x: float, digits: int = 2) -> str:
    """``4.28e-2``, without leading zeros of the exponent."""
    mantissa, e, exponent = f"{x:.{digits}e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e and x else f"{x:g}"


def rate_text(rate: Estimate, digits: int = 2) -> str:
    """``4.28e-2 (4.00-4.56)``: the interval shares the exponent; a dash where there is no rate."""
    if math.isnan(rate.value):
        return "-"
    if not rate.value:
        return f"0 (<{scientific(rate.high, digits)})"
    if math.isinf(rate.value):
        return f"inf (>{scientific(rate.low, digits)})"
    text = scientific(rate.value, digits)
    scale = 10.0 ** int(text.partition("e")[2])
    return f"{text} ({rate.low / scale:.{digits}f}-{rate.high / scale:.{digits}f})"


def ratio_text(ratio: Estimate, digits: int = 2) -> str:
    """``1.32 (1.24-1.41)``; a dash where there is none, as without any errors."""
    if math.isnan(ratio.value):
        return "-"
    value, low, high = (
        f"{x:.{digits}f}" if x < 100 else f"{x:.0f}" for x in dataclasses.astuple(ratio)
    )
    return f"{value} ({low}-{high})"
