"""The rotated surface code: where its qubits are, how its checks couple, what its logicals are.

Coordinates follow Stim's generated circuits: data qubits at odd (x, y) in 1 .. 2d-1,
ancillas (one per check) at even (x, y) in 0 .. 2d.  The *plaquette grid* has
(d+1) x (d+1) sites, site (row, col) at (x, y) = (2 col, 2 row); the *data grid* has
d x d sites, site (row, col) at (x, y) = (2 col + 1, 2 row + 1).  The data qubit (row, col)
touches the plaquettes (row, col), (row, col+1), (row+1, col), (row+1, col+1).
"""

from __future__ import annotations

import dataclasses
import numbers

import numpy as np

from qec.support.errors import QecError

ORIENTATIONS = ("ZV", "ZH", "XV", "XH")
ORDERS = ("across", "as-x", "as-z", "along")
"""Orders of the CNOTs of a round: hooks across the logicals, as in Stim's circuits; all checks in
the order that X, or Z checks have then; hooks along the logicals.  All but the first halve the
distance for one basis or both, and yet compilers have them.
"""

# Step s of the CNOT schedule couples a check to its data neighbour at this (dx, dy).  The second
# pair of steps is the hook: horizontal for one order, vertical for the other.
_HORIZONTAL_HOOK = ((+1, +1), (-1, +1), (+1, -1), (-1, -1))  # NE, NW, SE, SW
_VERTICAL_HOOK = ((+1, +1), (+1, -1), (-1, +1), (-1, -1))  # NE, SE, NW, SW


def plaquette_sites(shape: tuple[int, int], parity: int, on_rows: bool) -> np.ndarray:
    """Sites of one check type on the plaquette grid.

    Args:
        shape: rows and columns of data qubits, of either parity.
        parity: (row + col) % 2 of the sites that this type occupies.
        on_rows: whether the weight-2 checks of this type sit on the first and last *row*
            (else on the first and last column).

    Returns:
        bool array (rows + 1, columns + 1), True where a check of this type exists.
    """
    rows, cols = shape
    row, col = np.mgrid[: rows + 1, : cols + 1]
    # The type reaches over the edges in its own direction and keeps off the two others.
    inside = (col > 0) & (col < cols) if on_rows else (row > 0) & (row < rows)
    return inside & ((row + col) % 2 == parity)


@dataclasses.dataclass(frozen=True)
class RotatedSurfaceCode:
    """Geometry of a rotated surface code [[d^2, 1, d]].

    Args:
        distance: odd, at least 3.
        orientation: first letter: the type of the check at (x, y) = (2, 2); second letter: the
            direction in which the logical X runs, V(ertical) or H(orizontal).  "ZV" is the
            layout of ``stim.Circuit.generated("surface_code:rotated_memory_*")``.
        order: of the CNOTs, one of ``ORDERS``.

    Raises:
        QecError: even or too small distance, unknown orientation or order.

    Examples:
        >>> import qec
        >>> code = qec.RotatedSurfaceCode(5)
        >>> int(code.check_sites("X").sum() + code.check_sites("Z").sum())
        24
    """

    distance: int
    orientation: str = "ZV"
    order: str = "across"

    def __post_init__(self) -> None:
        d = self.distance
        if isinstance(d, bool) or not isinstance(d, numbers.Integral) or d < 3 or d % 2 == 0:
            raise QecError(
                f"distance={d!r} is not supported: use an odd integer >= 3 (3, 5, 7, ...)."
            )
        if self.orientation not in ORIENTATIONS:
            raise QecError(
                f"orientation={self.orientation!r} is unknown: use {', '.join(ORIENTATIONS)}."
            )
        if self.order not in ORDERS:
            raise QecError(f"order={self.order!r} is unknown: use {', '.join(ORDERS)}.")

    @property
    def logical_x_vertical(self) -> bool:
        """Whether the logical X is a column of data qubits (the logical Z is then a row)."""
        return self.orientation[1] == "V"

    def check_sites(self, basis: str) -> np.ndarray:
        """Plaquette-grid mask (d+1, d+1) of the checks of type ``basis`` ("X" or "Z").

        Raises:
            QecError: another basis.
        """
        if basis not in ("X", "Z"):
            raise QecError(f"basis={basis!r} is unknown: use X or Z.")
        parity = 0 if basis == self.orientation[0] else 1
        # X checks end the Z strings, so they line the two edges that the logical Z does not reach.
        on_rows = self.logical_x_vertical == (basis == "X")
        return plaquette_sites((self.distance, self.distance), parity, on_rows)

    def check_coords(self, basis: str) -> list[tuple[int, int]]:
        """(x, y) of the checks of type ``basis``, in row-major order."""
        return [(2 * int(c), 2 * int(r)) for r, c in np.argwhere(self.check_sites(basis))]

    def data_coords(self) -> list[tuple[int, int]]:
        """(x, y) of the data qubits, in row-major order."""
        odd = range(1, 2 * self.distance, 2)
        return [(x, y) for y in odd for x in odd]

    def logical_coords(self, basis: str) -> list[tuple[int, int]]:
        """(x, y) of the logical operator of type ``basis``: the first column or row."""
        odd = range(1, 2 * self.distance, 2)
        vertical = self.logical_x_vertical == (basis == "X")
        return [(1, k) if vertical else (k, 1) for k in odd]

    def schedule(self, basis: str) -> tuple[tuple[int, int], ...]:
        """The four (dx, dy) from a check of type ``basis`` to its data qubits, in CNOT order.

        The last two form the hook: an ancilla fault between the pairs spreads to them.  With the
        order "across" they lie across the logical of the same Pauli type, so that hooks do not
        halve the distance.
        """
        turned = {"across": basis, "as-x": "X", "as-z": "Z", "along": "Z" if basis == "X" else "X"}
        vertical_logical = self.logical_x_vertical == (turned[self.order] == "X")
        return _HORIZONTAL_HOOK if vertical_logical else _VERTICAL_HOOK
