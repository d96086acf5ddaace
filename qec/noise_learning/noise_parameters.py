"""Which noise instructions of a circuit share their parameters.

A circuit says how strong each channel is, not which of them are the same in the laboratory.  Two
applications are taken for the same *role* if they act in the same way (one-qubit channel, two-qubit
channel, single flip) at the same kind of moment: after or before the same gate on their qubit, or
while it idles.  An instruction with a tag, ``DEPOLARIZE1[memory](0.001) 5``, has that tag as its
role.  On ``qec.memory_circuit`` the roles are the fields of ``qec.CircuitNoise`` (tested).
"""

from __future__ import annotations

import stim

_ANNOTATIONS = {"DETECTOR", "OBSERVABLE_INCLUDE", "QUBIT_COORDS", "SHIFT_COORDS", "MPAD", "I"}
_FLIPS = {"X_ERROR", "Y_ERROR", "Z_ERROR"}
_TWO_QUBIT, _SPAM, _ONE_QUBIT = "two-qubit gates", "measurement or reset", "one-qubit gates"


class _Slice:
    """What happens between two TICKs.

    Attributes:
        gates: qubit -> (index of the instruction, gate) for each gate on it, in order.
    """

    def __init__(self) -> None:
        self.gates: dict[int, list[tuple[int, str]]] = {}
        self.kinds: set[str] = set()

    @property
    def kind(self) -> str:
        """The slowest kind of operation in the slice."""
        return next((k for k in (_TWO_QUBIT, _SPAM, _ONE_QUBIT) if k in self.kinds), "nothing")


class NoiseParameters:
    """Names the role of every noise instruction of a flattened circuit."""

    def __init__(self, circuit: stim.Circuit) -> None:
        self._slices: list[_Slice] = [_Slice()]
        self._slice_of: list[int] = []
        self._last_with_gates: list[int] = []
        measured: dict[int, int] = {}
        for k, op in enumerate(circuit):
            if op.name == "TICK":
                self._slices.append(_Slice())
            data = stim.gate_data(op.name)
            is_gate = op.name not in _ANNOTATIONS | {"TICK"} and (
                data.produces_measurements or not data.is_noisy_gate
            )
            if is_gate:
                self._add_gate(k, op, data)
            if data.produces_measurements:
                for q in _qubits(op):
                    measured[q] = measured.get(q, 0) + 1
            self._slice_of.append(len(self._slices) - 1)
        rounds = max(measured.values(), default=0)
        self._ancillas = {q for q, count in measured.items() if count > 1 or rounds == 1}
        last = 0
        for k, piece in enumerate(self._slices):
            last = k if piece.kinds else last
            self._last_with_gates.append(last)

    def _add_gate(self, k: int, op: stim.CircuitInstruction, data: stim.GateData) -> None:
        here = self._slices[-1]
        if data.produces_measurements or data.is_reset:
            here.kinds.add(_SPAM)
        else:
            here.kinds.add(_TWO_QUBIT if data.is_two_qubit_gate else _ONE_QUBIT)
        for q in _qubits(op):
            here.gates.setdefault(q, []).append((k, op.name))

    def of(self, k: int, op: stim.CircuitInstruction, qubits: tuple[int, ...]) -> str:
        """The role of instruction ``k`` of the circuit on ``qubits``."""
        if op.tag:
            return op.tag
        form = "flip" if op.name in _FLIPS else f"{len(qubits)}q"
        return f"{form} {self._moment(k, qubits[0])}"

    def _moment(self, k: int, qubit: int) -> str:
        here = self._slices[self._slice_of[k]]
        gates = here.gates.get(qubit, [])
        if before := [gate for at, gate in gates if at < k]:
            return f"after {before[-1]}"
        if after := [gate for at, gate in gates if at > k]:
            return f"before {after[0]}"
        if here.kinds:
            return f"idle during {here.kind}"
        # A slice with noise only belongs to the gates before it.
        previous = self._slices[self._last_with_gates[self._slice_of[k]]]
        if previous.kind == _SPAM:
            who = "ancilla" if qubit in self._ancillas else "data"
            return f"of {who} after {_SPAM}"
        if qubit in previous.gates:
            return f"after {previous.gates[qubit][-1][1]}"
        return f"idle during {previous.kind}"


def _qubits(op: stim.CircuitInstruction) -> list[int]:
    return [t.qubit_value for t in op.targets_copy() if t.qubit_value is not None]
