"""Progress of long loops: a bar on a terminal, sparse log lines elsewhere."""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Generic, TypeVar, overload

from tqdm import tqdm

T = TypeVar("T")

logger = logging.getLogger(__name__)

QUIET_SECONDS = 2.0
"""What ends sooner shows nothing."""

LONGEST_SILENCE_SECONDS = 60.0
"""Log lines come after 2, 4, 8, ... seconds, and then never further apart than this, however long
one unit of work takes."""


class Progress(Generic[T]):
    """Counts what is done, as a loop (`for x in progress(...)`) or by hand (`with ... as bar`).

    Made by `progress`.
    """

    def __init__(
        self, items: Iterable[T], *, total: int | None, description: str, unit: str
    ) -> None:
        self._items = items
        self._total = total
        self._description = description
        self._unit = unit
        self._bar: tqdm | None = None
        self._open = False
        self._done = 0
        self._note = ""
        self._start = 0.0
        self._next_line = 0.0
        self._last_line = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> "Progress[T]":
        self._open = True
        self._done = 0
        self._start = time.monotonic()
        self._next_line = QUIET_SECONDS
        self._last_line = 0.0
        if not _on_terminal():
            self._ended = threading.Event()
            threading.Thread(target=self._break_silence, args=[self._ended], daemon=True).start()
        else:
            self._bar = tqdm(
                total=self._total,
                desc=self._description,
                unit=f" {self._unit}",
                delay=QUIET_SECONDS,
                leave=False,
                dynamic_ncols=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        self._ended.set()
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        # After an error the last line would claim an end that was not reached.
        elapsed = time.monotonic() - self._start
        if kind is None and elapsed >= QUIET_SECONDS:
            done = f"{self._counted(self._done)} in {duration(elapsed)}{self._note}"
            logger.info("%s: %s", self._description, done)

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self._items:
                yield item
                self.advance()

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """Count `n` more as done; `note` (say, a loss) is shown behind the count until the next."""
        if not self._open:
            raise RuntimeError("expected an open progress; use it in a `with` statement")
        self._done += n
        self._note = f"; {note}" if note else self._note
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)
            return
        elapsed = time.monotonic() - self._start
        if elapsed >= self._next_line:
            self._log_line(elapsed)

    def _break_silence(self, ended: threading.Event) -> None:
        """Log lines while a unit of work takes so long that `advance` is not called in time."""
        silence = 0.0
        while not ended.wait(LONGEST_SILENCE_SECONDS - silence):
            elapsed = time.monotonic() - self._start
            if elapsed - self._last_line >= LONGEST_SILENCE_SECONDS:
                self._log_line(elapsed)
            silence = elapsed - self._last_line

    def _log_line(self, elapsed: float) -> None:
        self._last_line = elapsed
        self._next_line = elapsed + min(max(elapsed, QUIET_SECONDS), LONGEST_SILENCE_SECONDS)
        logger.info("%s: %s", self._description, self._standing(elapsed))

    def _standing(self, elapsed: float) -> str:
        if self._total is None:
            return f"{self._counted(self._done)} in {duration(elapsed)}{self._note}"
        left = elapsed * (self._total - self._done) / self._done if self._done else float("nan")
        share = self._done / self._total if self._total else 1.0
        ahead = f", about {duration(left)} left" if left == left and left > 0 else ""
        rate = f", {self._done / elapsed:.3g}/s" if self._done and elapsed else ""
        standing = f"{self._done}/{self._counted(self._total)}"
        return f"{standing} ({share:.0%}){rate}{ahead}{self._note}"

    def _counted(self, number: int) -> str:
        """So many units of work."""
        return counted(number, self._unit.removesuffix("s"))


def _on_terminal() -> bool:
    """Whether errors go to a terminal, and one whose width is known."""
    try:
        return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False


@overload
def progress(work: int, *, description: str, unit: str) -> Progress[int]: ...
@overload
def progress(work: Iterable[T], *, description: str, unit: str) -> Progress[T]: ...
def progress(
    work: int | Iterable[T], *, description: str, unit: str
) -> Progress[int] | Progress[T]:
    """Show how far some work is, if it takes over two seconds.

    Args:
        work: what to go through, or the number of units of work (then, in a loop, 0 ... work - 1).
        description: what is being done, e.g. "tracing".
        unit: what is counted, in the plural, e.g. "layers".

    A loop counts one unit each time round. To count by hand:

        with progress(len(problems), description="solving", unit="problems") as bar:
            for batch in batches:
                ...
                bar.advance(len(batch))

    Raises:
        ValueError: a negative number of units.
    """
    if isinstance(work, int):
        if work < 0:
            raise ValueError(f"expected at least 0 {unit}, got {work}; count the work first")
        return Progress(range(work), total=work, description=description, unit=unit)
    total = len(work) if isinstance(work, Sized) else None
    return Progress(work, total=total, description=description, unit=unit)


def duration(seconds: float) -> str:
    """A length of time for people: '7.5 s', '3 min 20 s', '2 h 05 min'."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, noun: str) -> str:
    """A number of things, for people: '1 shot', '4 shots'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
