"""Tables are at most 100 characters wide, cut no number, and their numbers can be read back."""

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from qec.support.statistics import Estimate, error_rate, paired_ratio
from qec.support.tables import (
    WIDTH,
    Column,
    markdown_table,
    rate_text,
    ratio_text,
    scientific,
    text_table,
    three_digits,
)

NAMES = st.text("abcxyz019[]-+_.", min_size=1, max_size=120)
ROWS = st.lists(st.tuples(NAMES, NAMES, st.integers(0, 10**30), st.integers(0, 10**20)), min_size=1)
COLUMNS = (
    Column("decoder", lambda row: row[0], name=True),
    Column("model of\nthe shots", lambda row: row[1], name=True),
    Column("logical errors", lambda row: str(row[2])),
    Column("shots", lambda row: str(row[3])),
)


@given(ROWS)
def test_names_give_way_and_numbers_do_not(rows):
    lines = text_table(COLUMNS, rows).splitlines()
    assert max(map(len, lines)) <= WIDTH
    heads, body = lines[:3], lines[3:]
    assert [line.split() for line in heads[:2]] == [
        ["model", "of"],
        ["decoder", "the", "shots", "logical", "errors", "shots"],
    ]
    widths = [len(rule) for rule in heads[2].split()]
    starts = [sum(widths[:k]) + 2 * k for k in range(len(widths))]
    cells = [[line[a : a + w] for a, w in zip(starts, widths, strict=True)] for line in body]
    firsts = [k for k, cell in enumerate(cells) if cell[3].strip()]
    assert len(firsts) == len(rows)
    for row, start, end in zip(rows, firsts, [*firsts[1:], len(cells)], strict=True):
        for column in range(2):  # the lines of a folded name put together are the name
            assert "".join(cell[column].strip() for cell in cells[start:end]) == row[column]
        assert [int(cell) for cell in cells[start][2:]] == [*row[2:]]


def test_a_name_is_folded_behind_a_sign():
    rows = [("predecoder[standard]+matching-cascade-ensemble", "x" * 40, 10**20, 1)]
    lines = text_table(COLUMNS, rows).splitlines()
    assert [line.split()[0] for line in lines[3:5]] == [
        "predecoder[standard]+",
        "matching-cascade-ensemble",
    ]


def test_a_table_without_a_limit_folds_nothing():
    rows = [("a" * 90, "b" * 90, 1, 2)]
    assert text_table(COLUMNS, rows, None).splitlines()[-1].split()[:2] == [*rows[0][:2]]


def test_the_same_columns_make_markdown():
    assert markdown_table(COLUMNS[1:], [("", "b", 2, 3)]).splitlines() == [
        "| model of the shots | logical errors | shots |",
        "| --- | --- | --- |",
        "| b | 2 | 3 |",
    ]


@given(st.floats(1e-300, 1e300), st.integers(1, 4))
def test_scientific_numbers_are_rounded_and_their_exponent_has_no_zeros(x, digits):
    text = scientific(x, digits)
    assert float(text) == float(f"{x:.{digits}e}")
    assert re.fullmatch(r"\d\.\d+e(0|-?[1-9]\d*)", text)


@given(st.integers(1, 10**9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_intervals_share_the_exponent_of_their_rate(counts):
    rate = error_rate(*counts)
    text = rate_text(rate)
    if not rate.value:
        assert text == f"0 (<{scientific(rate.high)})"
        return
    value, low, high = re.fullmatch(r"(\S+) \(([\d.]+)-([\d.]+)\)", text).groups()
    exponent = value.partition("e")[2]
    for shown, x in (
        (value, rate.value),
        (f"{low}e{exponent}", rate.low),
        (f"{high}e{exponent}", rate.high),
    ):
        assert math.isclose(float(shown), x, rel_tol=0, abs_tol=0.0051 * 10.0 ** int(exponent))


def test_numbers_at_the_ends():
    assert rate_text(error_rate(5, 100)) == "5.00e-2 (1.64-11.28)"
    assert rate_text(Estimate(math.nan, 0, 1)) == "-"
    assert rate_text(Estimate(math.inf, 12.3, math.inf)) == "inf (>1.23e1)"
    assert ratio_text(paired_ratio(0, 0, 0)) == "-"
    assert ratio_text(Estimate(1.2345, 0.9996, 123.4), 3) == "1.234 (1.000-123)"
    assert [three_digits(x) for x in (1.234, 99.96, 999.7, 12345.6)] == [
        "1.23",
        "100",
        "1000",
        "12346",
    ]
    assert [scientific(x) for x in (0.0, math.nan, 1.0)] == ["0", "nan", "1.00e0"]
