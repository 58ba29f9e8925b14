"""A trial in a thread of its own that runs only while it is called, so that several can take turns.

It runs the code of a single trial. Where it needs something that is done for several trials at
once, it hands out a request and waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any


class TrialThread(threading.Thread):
    """A trial that takes turns with others; of all threads only one runs at any time.

    Args:
        trial: The trial.
        train: Trains it.

    Attributes:
        request: What it waits for; None if it runs or has ended.
        error: What ended it.
        seconds: Time of its turns, and its share of what was done for several.
        loop: What its model trains with.
    """

    def __init__(self, trial: Any, train: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.trial = trial
        self.request: Any = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        self.loop: Any = None
        self._train = train
        self._results: Any = None
        self._failure: BaseException | None = None
        self._turn_began = self._told = 0.0
        self._turn, self._turn_over = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        """Trains, in the thread."""
        try:
            self._results = self._train()
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            self.error = error
        self._turn_over.release()

    def resume(self, failure: Exception | None = None) -> None:
        """Lets the trial run until it waits or ends.

        Args:
            failure: Raised where it waits.
        """
        self._failure, self._turn_began = failure, monotonic()
        if self.ident is None:
            self.start()
        else:
            self._turn.release()
        self._turn_over.acquire()
        self.seconds += monotonic() - self._turn_began

    def cancel(self) -> None:
        """Ends the thread where it waits, or where it waits next."""
        self._failure = CancelledError()
        self._turn.release()
        self.join()

    def wait_for(self, request: Any) -> None:
        """Waits until a request is served. Called in the thread."""
        self.request = request
        self._turn_over.release()
        self._turn.acquire()
        self.request = None
        if self._failure is not None:
            raise self._failure

    def lap(self) -> float:
        """Returns the seconds since the last call. Called in the thread."""
        before, self._told = self._told, self.seconds + monotonic() - self._turn_began
        return self._told - before

    def result(self) -> Any:
        """Returns what training returned, or raises what it raised."""
        if self.error is not None:
            raise self.error
        return self._results


class CancelledError(BaseException):
    """The search ends before the trial; not for what handles errors of a training."""
