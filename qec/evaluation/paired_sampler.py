"""Logical error counts of several decoders on the same shots.

Each batch of shots is sampled once and decoded by every decoder, so that differences between
decoders are not drowned in sampling noise.
"""

from __future__ import annotations

import collections
import dataclasses
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sinter

from qec.circuits.experiment_grid import Point
from qec.decoding.decoder import Decoder, MatchResult, named_decoders
from qec.decoding.decoder_names import PEERS, has_predecoder
from qec.support.errors import QecError

SAMPLER = "paired"
"""The name under which the sampler stands in the decoder column of collected.csv."""


@dataclasses.dataclass(frozen=True)
class PairedSampler(sinter.Sampler):
    """Samples shots once and decodes them with several decoders.

    Attributes:
        decoders: their names; ``errors`` of the returned statistics are those of the first.
        predecoder: name or path of the checkpoint of those that have a pre-decoder, or several:
            each of those decoders is then there once for each, as in ``rows``.
        batch: shots at a time.
        baselines: for each row the one that it is compared with, shot by shot; empty: the first.
        seed: of the shots; None: Stim's choice.
        device: where networks run, "cpu", "cuda" or "cuda:N".
    """

    decoders: tuple[str, ...]
    predecoder: str | tuple[str, ...]
    batch: int
    baselines: tuple[str, ...] = ()
    seed: int | None = None
    device: str = "cpu"

    def rows(self) -> dict[str, tuple[str, str | None]]:
        """For the name of each row of results its decoder, and the checkpoint where it has one.

        The name is the decoder's; of several checkpoints it says which one, by the file's stem:
        ``predecoder[small]+pymatching``.

        Raises:
            QecError: two checkpoints of one name.
        """
        several = (self.predecoder,) if isinstance(self.predecoder, str) else self.predecoder
        labels = {Path(path).stem: path for path in several}
        if len(labels) < len(several):
            raise QecError(
                f"predecoder={','.join(several)}: two checkpoints have one name, which tells their "
                "rows apart: rename a file."
            )
        found: dict[str, tuple[str, str | None]] = {}
        for name in self.decoders:
            if not has_predecoder(name):
                found[name] = (name, None)
                continue
            for label, path in labels.items():
                tag = f"predecoder[{label}]" if len(labels) > 1 else "predecoder"
                found[name.replace("predecoder", tag, 1)] = (name, path)
        return found

    def compiled_sampler_for_task(self, task: sinter.Task) -> CompiledPairedSampler:
        """The sampler of one circuit, as sinter asks for it."""
        return CompiledPairedSampler(self, task)

    def tasks(
        self, points: Iterable[Point], *, max_shots: int, max_errors: int | None = None
    ) -> Iterator[sinter.Task]:
        """A sinter task per point; what decodes it is part of the task's identity.

        Raises:
            QecError: a checkpoint cannot be loaded, or as ``rows`` or ``points``.
        """
        rows = self.rows()
        shared: dict[str, object] = {"decoders": list(rows)}
        if self.baselines:
            shared["baselines"] = list(self.baselines)
        if paths := dict.fromkeys(path for _, path in rows.values() if path is not None):
            from qec.predecoder.checkpoint import load_predecoder

            # The digest, so that a retrained checkpoint starts new rows.
            loaded = [load_predecoder(path) for path in paths]
            names = [f"{predecoder.name}@{predecoder.digest}" for predecoder in loaded]
            shared["predecoder"] = names[0] if len(names) == 1 else names
        for circuit, dem, metadata in points:
            yield sinter.Task(
                circuit=circuit,
                detector_error_model=dem,
                decoder=SAMPLER,
                json_metadata={**metadata, **shared},
                collection_options=sinter.CollectionOptions(
                    max_shots=max_shots, max_errors=max_errors
                ),
            )


class CompiledPairedSampler(sinter.CompiledSampler):
    """``PairedSampler`` for one circuit.

    Custom counts, all additive:

    events: detection events sampled, of the checks that decide where a pre-decoder takes part;
    errors:NAME: shots that NAME predicts wrongly;
    both:NAME: shots that NAME and its baseline predict wrongly;
    events_left:NAME: those that NAME hands to matching, of the residuals and of the shots whose
    whole syndrome a cascade's last stage decodes;
    fallbacks:NAME: the number of those shots;
    predecode_ns:NAME, match_ns:NAME: nanoseconds of CPU time, which other work on the machine does
    not count into.  Decoders that share a checkpoint run its network once and each report its time.
    """

    def __init__(self, sampler: PairedSampler, task: sinter.Task) -> None:
        self.batch = sampler.batch
        self.stim_sampler = task.circuit.compile_detector_sampler(seed=sampler.seed)
        rows, self.groups = sampler.rows(), []
        made: dict[str, Decoder] = {}
        for checkpoint in dict.fromkeys(path for _, path in rows.values()):
            group = {row: name for row, (name, path) in rows.items() if path == checkpoint}
            network = {}
            if checkpoint is not None:
                network = {"predecoder": checkpoint, "device": sampler.device}
            with warnings.catch_warnings(action="ignore"):  # whoever made the tasks has said it
                found = named_decoders(tuple(group.values()), task.detector_error_model, **network)
            made |= {row: found[name] for row, name in group.items()}
            self.groups.append(list(group))
        self.decoders = {row: made[row] for row in rows}
        baselines = sampler.baselines or list(rows)[:1] * len(rows)
        self.baselines = dict(zip(rows, baselines, strict=True))
        lattices = (d.predecoder.lattice for d in self.decoders.values() if d.predecoder)
        everywhere = np.arange(task.circuit.num_detectors)
        self._counted = next((lattice.memory_detectors for lattice in lattices), everywhere)
        self._warm_up()

    def handles_throttling(self) -> bool:
        """True: sinter need not find out how many shots are good, ``batch`` says so."""
        return True

    def _warm_up(self) -> None:
        """First calls set things up: keeps that out of the timings.

        Pre-decoders get enough shots for some to be in doubt.  Peers get one, since some of them
        take seconds for it.
        """
        dets = self.stim_sampler.sample(min(64, self.batch)).view(np.uint8)
        for network in {d.predecoder for d in self.decoders.values() if d.predecoder}:
            network.warm_up()
        for names in self.groups:
            for is_peer, shots in ((False, dets), (True, dets[:1])):
                found = [self.decoders[name] for name in names if (name in PEERS) == is_peer]
                if found:
                    self._decode(shots, found)

    def sample(self, suggested_shots: int) -> sinter.AnonTaskStats:
        """Samples and decodes at most ``batch`` shots, as sinter asks for them."""
        started = time.perf_counter()
        shots = min(suggested_shots, self.batch)
        dets, flips = self.stim_sampler.sample(shots, separate_observables=True)
        dets, truth = dets.view(np.uint8), flips[:, 0].view(np.uint8)
        counts = collections.Counter(events=self._events(dets))
        wrong: dict[str, np.ndarray] = {}
        for names in self.groups:
            done = self._decode(dets, [self.decoders[name] for name in names])
            for name in names:
                found = done[self.decoders[name]]
                counts[f"match_ns:{name}"] = found.match_ns
                counts[f"predecode_ns:{name}"] = found.predecode_ns
                whole = dets[found.matched.handed_on]
                counts[f"fallbacks:{name}"] = len(whole)
                counts[f"events_left:{name}"] = found.events + self._events(whole)
                wrong[name] = found.matched.flips != truth
        for name, baseline in self.baselines.items():
            counts[f"errors:{name}"] = int(wrong[name].sum())
            counts[f"both:{name}"] = int((wrong[name] & wrong[baseline]).sum())
        return sinter.AnonTaskStats(
            shots=shots,
            errors=counts[f"errors:{next(iter(self.decoders))}"],
            seconds=time.perf_counter() - started,
            custom_counts=counts,
        )

    def _decode(self, dets: np.ndarray, decoders: Sequence[Decoder]) -> dict[Decoder, _Decoded]:
        """Decodes with each of them; a network that several have runs once."""
        done, networks = {}, {}
        for decoder in decoders:
            if decoder.predecoder not in networks:
                start = time.process_time_ns()
                predecoded = decoder.predecode(dets)
                networks[decoder.predecoder] = predecoded, time.process_time_ns() - start
            predecoded, predecode_ns = networks[decoder.predecoder]
            start = time.process_time_ns()
            matched = decoder.match(dets, predecoded)
            match_ns = time.process_time_ns() - start
            events = self._events(predecoded.residual)
            done[decoder] = _Decoded(matched, events, predecode_ns, match_ns)
        return done

    def _events(self, dets: np.ndarray) -> int:
        return int(dets.take(self._counted, axis=1).sum())


class _Decoded(NamedTuple):
    """What one decoder made of a batch."""

    matched: MatchResult
    events: int  # left by the pre-decoder
    predecode_ns: int
    match_ns: int
