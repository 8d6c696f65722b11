"""Output that may have nowhere to go: a reader that has gone away, a disk that is full."""

import contextlib
import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors that mean: no room."""


def no_room(error: BaseException | None) -> str | None:
    """The system's words for a full disk, if that is what is behind an error; None if it is not.

    Some libraries only put them into a text of their own.
    """
    while error is not None:
        for number in FULL:
            known = isinstance(error, OSError) and error.errno == number
            if known or os.strerror(number) in str(error):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


class Lasting:
    """A text stream that does not fail: from its first error on, what is written is lost.

    A pipe whose reader has gone away is no error worth a word. Any other is told once, by the
    other stream. Streams are whatever can be written to: tests have their own.
    """

    def __init__(self, stream: Any, *, tell: Any) -> None:
        self._stream = stream
        self._tell = tell

    def write(self, text: str) -> int:
        """Write a text, somewhere."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Pass on what has been written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        with open(os.devnull, "wb") as nowhere:
            try:
                # Below the stream: its buffer holds what could not be written, and tries again.
                os.dup2(nowhere.fileno(), self._stream.fileno())
            except (OSError, io.UnsupportedOperation):
                self._stream = io.StringIO()
        if error.errno != errno.EPIPE and self._tell is not self._stream:
            with contextlib.suppress(OSError):
                self._tell.write(f"output cannot be written ({error.strerror}): it is lost\n")


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Let standard output and standard error last while the program does."""
    known = sys.stdout, sys.stderr
    # A program may be started with either closed.
    output, errors = (stream or open(os.devnull, "w") for stream in known)  # noqa: SIM115
    sys.stdout, sys.stderr = Lasting(output, tell=errors), Lasting(errors, tell=errors)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = known


class LogFile(logging.FileHandler):
    """A log on disk. That it cannot be written is told once, and not with every line."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Tell of an error of the disk in one line, and of any other as logging does."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            sys.stderr.write(f"the log {self.baseFilename} cannot be written ({error.strerror})\n")
