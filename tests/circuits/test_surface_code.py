"""Geometry of the code, against the definition of a stabiliser code and against Stim's layout."""

import pytest
import stim

from qec.circuits.surface_code import ORIENTATIONS, RotatedSurfaceCode
from qec.support.errors import QecError

CODES = [RotatedSurfaceCode(d, o) for d in (3, 5, 7) for o in ORIENTATIONS]
each_code = pytest.mark.parametrize("code", CODES, ids=lambda c: f"{c.distance}{c.orientation}")


def supports(code, basis):
    data = set(code.data_coords())
    corners = [(dx, dy) for dx in (1, -1) for dy in (1, -1)]
    return [{(x + dx, y + dy) for dx, dy in corners} & data for x, y in code.check_coords(basis)]


@each_code
def test_it_encodes_one_qubit(code):
    checks = [set(code.check_coords(b)) for b in "XZ"]
    assert len(checks[0]) == len(checks[1]) == (code.distance**2 - 1) // 2
    assert not checks[0] & checks[1]
    assert len(set(code.data_coords())) == code.distance**2


@each_code
def test_checks_and_logicals_commute(code):
    logical = {b: set(code.logical_coords(b)) for b in "XZ"}
    for x_check in supports(code, "X"):
        assert all(len(x_check & z_check) % 2 == 0 for z_check in supports(code, "Z"))
        assert len(x_check & logical["Z"]) % 2 == 0
    assert all(len(z_check & logical["X"]) % 2 == 0 for z_check in supports(code, "Z"))
    assert len(logical["X"] & logical["Z"]) == 1
    assert {len(logical[b]) for b in "XZ"} == {code.distance}
    assert {len(s) for b in "XZ" for s in supports(code, b)} == {2, 4}


@each_code
def test_orientation_names(code):
    first, logical_x = code.orientation
    assert (2, 2) in code.check_coords(first)
    xs, ys = zip(*code.logical_coords("X"), strict=True)
    assert len(set(xs if logical_x == "V" else ys)) == 1


@each_code
@pytest.mark.parametrize("basis", ["X", "Z"])
def test_schedule_visits_each_neighbour_and_ends_across_the_logical(code, basis):
    steps = code.schedule(basis)
    assert {abs(dx) for dx, _ in steps} == {abs(dy) for _, dy in steps} == {1}
    assert len(set(steps)) == 4
    (dx1, dy1), (dx2, dy2) = steps[2:]
    logical_is_vertical = len({x for x, _ in code.logical_coords(basis)}) == 1
    assert (dy1 == dy2) if logical_is_vertical else (dx1 == dx2)


@pytest.mark.parametrize("distance", [3, 5])
def test_zv_is_stims_layout(distance):
    circuit = stim.Circuit.generated("surface_code:rotated_memory_x", distance=distance, rounds=2)
    code = RotatedSurfaceCode(distance)
    everything = code.data_coords() + code.check_coords("X") + code.check_coords("Z")
    found = {tuple(map(int, xy)) for xy in circuit.get_final_qubit_coordinates().values()}
    assert found == set(everything)
    times = circuit.get_detector_coordinates().values()
    assert {(int(x), int(y)) for x, y, t in times if t == 0} == set(code.check_coords("X"))


@pytest.mark.parametrize("distance", [0, 1, 2, 4, -3, 3.0, "3", True, None])
def test_bad_distance(distance):
    with pytest.raises(QecError, match=r"distance=.* odd integer >= 3"):
        RotatedSurfaceCode(distance)


@pytest.mark.parametrize("orientation", ["zv", "", "ZX", None])
def test_bad_orientation(orientation):
    with pytest.raises(QecError, match=r"orientation=.* use .*ZV, ZH, XV, XH"):
        RotatedSurfaceCode(3, orientation)
