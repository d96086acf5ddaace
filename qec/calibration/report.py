"""The tables of `qec calibrate`, at most 100 columns wide."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from qec.calibration.confidence_against_errors import (
    LEAST_ERRORS,
    SHARES,
    Bin,
    Calibration,
    selected_at,
)
from qec.calibration.kept import Kept
from qec.calibration.stages import Stage
from qec.evaluation.sweep_table import short
from qec.support.statistics import Estimate, error_rate

WIDTH = 100
_NARROWEST = 6  # of the first column: the bins "10-11"


def _console() -> Console:
    return Console(width=WIDTH, markup=False, highlight=False, soft_wrap=True)


def _table(first: str, others: Sequence[str]) -> Table:
    """Numbers are never cut short: a long name in the first column gives way."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(first, min_width=_NARROWEST, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


# Stages ------------------------------------------------------------------------------------------


def print_stages(kept: Kept, title: str) -> None:
    """Prints what each cascade hands on, changes and costs, and which stage pays."""
    console, stages = _console(), kept.stages.stages
    console.print(title, style="bold")
    table = _table("behind memory-check matching", [stage.name for stage in stages])
    columns = [_stage_cells(stage) for stage in stages]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    console.print(table, "")
    for stage in stages:
        console.print(verdict(stage))
    if kept.known:
        console.print("Stages: measured by an earlier run; cached=false measures them again.")
    console.print()


def _stage_cells(stage: Stage) -> dict[str, str]:
    return {
        "handed on below a gap of": f"{stage.nats:g} nats",
        "shots handed on": _percent(stage.share),
        "  of these it changes": _changed(stage.changed_handed_on, stage.checked_handed_on),
        "  of those kept it would change": _changed(stage.changed_kept, stage.checked_kept),
        "CPU us per shot: memory-check matching": short(stage.memory_us),
        "  next stage, shots handed on": short(stage.handed_on_us),
        "  next stage, shots kept": short(stage.kept_us),
        "  the cascade": short(stage.cascade_us),
        "  next stage alone": short(stage.alone_us),
        "  cascade over next stage alone": f"{stage.time_share:.2f}",
    }


def verdict(stage: Stage) -> str:
    """Whether asking a better decoder pays, and for which shots."""
    checked = stage.checked_handed_on + stage.checked_kept
    if stage.asked == "none":
        return (
            f"{stage.name}: off, it changes none of {checked} predictions "
            f"(at most {stage.most_changed:.1%} of all)"
        )
    if stage.asked == "all":
        return f"{stage.name}: on, for all shots; memory-check matching ahead of it saves no time"
    return f"{stage.name}: on, for shots in doubt; {stage.time_share:.2f} of its time for all shots"


def _percent(share: Estimate) -> str:
    value, low, high = (f"{100 * x:.1f}" for x in (share.value, share.low, share.high))
    return f"{value} % ({low}-{high})"


def _changed(changed: int, checked: int) -> str:
    if not checked:
        return "there are none"
    return f"{changed} of {checked}, {_percent(error_rate(changed, checked))}"


# Confidence --------------------------------------------------------------------------------------


def print_confidence(found: Sequence[Calibration]) -> None:
    """Prints reliability by decoder, and post-selection of all."""
    console = _console()
    for one in found:
        console.print(f"{one.decoder}: {one.errors} errors; {_slope(one.slope)}", style="bold")
        console.print(_reliability(one), "")
    console.print(
        "Odds of an error with 95 % intervals. 2nd half: of the shots, predicted by gap times "
        f"slope.\nBins with fewer than {LEAST_ERRORS} errors are in calibration.json alone.\n"
    )
    console.print("Logical error rate of the shots kept, least sure discarded", style="bold")
    console.print(_post_selection(found), "")
    console.print(
        "By the other gap: the same predictions, discarded by the gap of uncorrelated matching."
    )


def _slope(slope: Estimate) -> str:
    if math.isnan(slope.value):
        return "too few in the first half of the shots for a slope"
    return f"slope {slope.value:.2f} ({slope.low:.2f}-{slope.high:.2f}), first half of the shots"


def _reliability(one: Calibration) -> Table:
    heads = ("shots", "errors", "predicted", "observed", "observed/\npredicted")
    table = _table("nats", [*heads, "2nd half:\nerrors", "observed/\npredicted"])
    corrected = {b.low: b for b in one.corrected}
    for b in one.raw:
        if b.errors < LEAST_ERRORS:
            continue
        cells = [str(b.shots), str(b.errors), _scientific(b.predicted), _short(b.observed)]
        cells.append(_ratio(b))
        if (other := corrected.get(b.low)) is not None:
            cells += [str(other.errors), _ratio(other)]
        table.add_row(f"{b.low}-{b.low + 1}", *cells)
    return table


def _ratio(b: Bin) -> str:
    value, low, high = (f"{x:.2g}" if x < 100 else f"{x:.0f}" for x in dataclasses.astuple(b.ratio))
    return f"{value} ({low}-{high})"


def _post_selection(found: Sequence[Calibration]) -> Table:
    table = _table("discarded", [f"{share:.0%}" for share in SHARES])
    for one in found:
        for name, curve in ((one.decoder, one.selected), ("  by the other gap", one.reference)):
            table.add_row(name, *(_short(selected_at(curve, share).rate) for share in SHARES))
    return table


def _short(x: Estimate) -> str:
    """``4.4e-2 (4.2-4.7)``: the interval shares the exponent of the value."""
    if not x.value:
        return f"0 (<{x.high:.1e})"
    if math.isinf(x.value):
        return f"inf (>{x.low:.1e})"
    exponent = _exponent(x.value)
    value, low, high = (y / 10**exponent for y in (x.value, x.low, x.high))
    return f"{value:.1f}e{exponent} ({low:.1f}-{high:.1f})"


def _scientific(x: float) -> str:
    """``4.4e-2``, without leading zeros of the exponent."""
    exponent = _exponent(x)
    return f"{x / 10**exponent:.1f}e{exponent}"


def _exponent(x: float) -> int:
    return math.floor(math.log10(x))
