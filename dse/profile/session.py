"""Time of one operator in ONNX Runtime's CPU provider: several copies in a session.

A run of the session is the replay of the clock; before it the caches are filled with something
else. The session's own start, which a network pays once, is what two copies take less than
twice one: the difference over the copies between is reported.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from dse.profile.clock import Repeats, Timing
from dse.profile.onnx_graph import graph_of
from dse.profile.plan import Operator
from dse.profile.size import weight_bytes

FEW = 2
"""Copies of the session that is subtracted."""
MOST = 34
"""Copies of the other one: as many as last `Repeats.replay_s`, as far as weights fit."""
LEAST = 6
LEAST_REPLAYS = 4


class SessionClock:
    """Times operators in sessions of ONNX Runtime.

    Raises:
        ImportError: onnxruntime is not installed.
    """

    def __init__(self, repeats: Repeats | None = None, threads: int = 0) -> None:
        import onnxruntime  # noqa: PLC0415 (an extra)

        self._ort = onnxruntime
        self._threads = threads
        self.repeats = repeats or Repeats()
        self.software = f"onnxruntime {onnxruntime.__version__}"
        self._other = np.ones(self.repeats.cold_bytes // 4, dtype=np.float32)

    def measure(self, operator: Operator) -> Timing:
        """The time of one copy.

        Raises:
            KeyError: No such kernel.
        """
        few = self._times(operator, FEW)
        room = self.repeats.operand_bytes // 4 // max(weight_bytes(operator), 1)
        wanted = round(self.repeats.replay_s / (min(few) / FEW))
        many = max(min(wanted, room, MOST), LEAST)
        whole = self._times(operator, many)
        copies = many - FEW
        base_s = statistics.median(few)
        each = sorted((one - base_s) / copies for one in whole)
        least = (min(whole) - min(few)) / copies
        return Timing(
            median_us=max(statistics.median(each), least) * 1e6,
            min_us=least * 1e6,
            max_us=each[-1] * 1e6,
            calls=copies,
        )

    def _times(self, operator: Operator, copies: int) -> list[float]:
        """Seconds of runs of a session; its threads end with it, which else wait in a loop."""
        run = self._session(operator, copies)
        single_s = self._once(run)
        most = 2 * self.repeats.replays
        replays = min(max(round(self.repeats.slow_s / single_s), LEAST_REPLAYS), most)
        found = []
        for _ in range(replays):
            self._other.sum()
            found.append(self._once(run))
        return found

    def _once(self, run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def _session(self, operator: Operator, copies: int) -> Callable[[], object]:
        graph = graph_of(operator, copies)
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        session = self._ort.InferenceSession(
            graph.model(), options, providers=["CPUExecutionProvider"]
        )

        def run() -> object:
            return session.run(None, graph.feeds)

        for _ in range(2):
            run()
        return run
