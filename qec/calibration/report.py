"""The tables of `qec calibrate`, at most 100 columns wide."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from qec.calibration.confidence_against_errors import (
    LEAST_ERRORS,
    SHARES,
    Bin,
    Calibration,
    Selected,
    selected_at,
)
from qec.calibration.kept import Kept
from qec.calibration.stages import Stage
from qec.support.statistics import Estimate, error_rate
from qec.support.tables import Column, print_table, rate_text, scientific, three_digits

# Stages ------------------------------------------------------------------------------------------


def print_stages(kept: Kept, title: str) -> None:
    """Prints what each cascade hands on, changes and costs, and which stage pays."""
    stages = kept.stages.stages
    cells = {stage.name: _stage_cells(stage) for stage in stages}
    columns = [Column[str]("behind memory-check matching", str, name=True)]
    columns += [Column(name, found.__getitem__) for name, found in cells.items()]
    print_table(columns, list(_stage_cells(stages[0])), f"{title}\n")
    for stage in stages:
        print(verdict(stage))
    if kept.known:
        print("Stages: measured by an earlier run; cached=false measures them again.")
    print()


def _stage_cells(stage: Stage) -> dict[str, str]:
    return {
        "handed on below a gap of": f"{stage.nats:g} nats",
        "shots handed on": _percent(stage.share),
        "  of these it changes": _changed(stage.changed_handed_on, stage.checked_handed_on),
        "  of those kept it would change": _changed(stage.changed_kept, stage.checked_kept),
        "CPU us per shot: memory-check matching": three_digits(stage.memory_us),
        "  next stage, shots handed on": three_digits(stage.handed_on_us),
        "  next stage, shots kept": three_digits(stage.kept_us),
        "  the cascade": three_digits(stage.cascade_us),
        "  next stage alone": three_digits(stage.alone_us),
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
    for one in found:
        bins = [b for b in one.raw if b.errors >= LEAST_ERRORS]
        title = f"{one.decoder}: {one.errors} errors\n{_slope(one.slope)}\n"
        print_table(_reliability(one), bins, title)
    print(
        "Odds of an error with 95 % intervals. 2nd half: of the shots, predicted by gap times "
        f"slope.\nBins with fewer than {LEAST_ERRORS} errors are in calibration.json alone.\n"
    )
    curves = [
        pair
        for one in found
        for pair in ((one.decoder, one.selected), ("  by the other gap", one.reference))
    ]
    print_table(
        _POST_SELECTION, curves, "Logical error rate of the shots kept, least sure discarded\n"
    )
    print("By the other gap: the same predictions, discarded by the gap of uncorrelated matching.")


def _slope(slope: Estimate) -> str:
    if math.isnan(slope.value):
        return "too few in the first half of the shots for a slope"
    return f"slope {slope.value:.2f} ({slope.low:.2f}-{slope.high:.2f}), first half of the shots"


def _reliability(one: Calibration) -> list[Column[Bin]]:
    corrected = {b.low: b for b in one.corrected}

    def of_second_half(text: Callable[[Bin], str]) -> Callable[[Bin], str]:
        return lambda b: text(corrected[b.low]) if b.low in corrected else ""

    return [
        Column("nats", lambda b: f"{b.low}-{b.low + 1}"),
        Column("shots", lambda b: str(b.shots)),
        Column("errors", lambda b: str(b.errors)),
        Column("predicted", lambda b: scientific(b.predicted, 1)),
        Column("observed", lambda b: rate_text(b.observed, 1)),
        Column("observed/\npredicted", _ratio),
        Column("2nd half:\nerrors", of_second_half(lambda b: str(b.errors))),
        Column("observed/\npredicted", of_second_half(_ratio)),
    ]


def _ratio(b: Bin) -> str:
    ends = (b.ratio.value, b.ratio.low, b.ratio.high)
    value, low, high = (f"{x:.2g}" if x < 100 else f"{x:.0f}" for x in ends)
    return f"{value} ({low}-{high})"


def _selected(share: float) -> Column[tuple[str, Sequence[Selected]]]:
    return Column(f"{share:.0%}", lambda curve: rate_text(selected_at(curve[1], share).rate, 1))


_POST_SELECTION = (
    Column[tuple]("discarded", lambda curve: curve[0], name=True),
    *map(_selected, SHARES),
)
