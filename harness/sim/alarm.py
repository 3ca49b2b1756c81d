"""A timer that rings at an absolute time of the monotonic clock.

An event loop's own timers are rounded to milliseconds, and a decode step takes two. Linux's timerfd
is accurate to about 0.05 ms; where there is none, the event loop's timer is used.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

CLOCK_MONOTONIC = 1
TFD_NONBLOCK = os.O_NONBLOCK
TFD_TIMER_ABSTIME = 1


class Alarm:
    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int | None = None
        self._handle: asyncio.TimerHandle | None = None  # where there is no timerfd
        if hasattr(self._libc, "timerfd_create"):
            self._fd = self._libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)
            self._loop.add_reader(self._fd, self._on_timer)

    def set(self, at_s: float) -> None:
        """Ring once at `at_s`, or immediately if that has passed; replaces any earlier setting."""
        if self._fd is None:
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._loop.call_later(at_s - time.perf_counter(), self._ring)
            return
        whole_s, frac_s = divmod(max(at_s, 1e-6), 1.0)
        interval_and_value = (ctypes.c_long * 4)(0, 0, int(whole_s), int(frac_s * 1e9))
        self._libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, interval_and_value, None)

    def _on_timer(self) -> None:
        assert self._fd is not None
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set again between the ring and now
            return
        self._ring()
