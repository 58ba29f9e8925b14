"""Errors a user can act on: each names the rule, what was received and the way out.

Every class also derives from the builtin a caller would expect: `except ValueError` keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING


class ZooError(Exception):
    """Base of every error raised on purpose; the command line prints one line and exits with 2."""

    if not TYPE_CHECKING:
        # Not inherited from a builtin: by this TensorFlow's autograph sees that it can raise the
        # error again, with the user's own lines in the message, instead of one of its own.
        __init__ = Exception.__init__


class UnknownNameError(ZooError, ValueError):
    """A model, recipe, augmentation or data set that does not exist."""


class UnknownModelError(UnknownNameError):
    """A name that the catalog does not hold."""


class OptionError(ZooError, TypeError):
    """An option that the model or recipe does not take."""


class OptionValueError(ZooError, ValueError):
    """An option whose value breaks its rule."""


class DataError(ZooError, ValueError):
    """Data that cannot be trained on: empty, corrupt, one class only, not finite."""


class SourceError(ZooError, OSError):
    """A file that could not be had: unreachable, missing, truncated."""


class OfflineError(SourceError):
    """A download was needed while offline mode is on."""


class HashMismatchError(SourceError):
    """A file whose content is not what its publisher named."""


class CheckpointError(ZooError, ValueError):
    """A file that is not a readable checkpoint."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that asks to run code; nothing of it was run."""


class WeightsMismatchError(ZooError, ValueError):
    """A checkpoint that belongs to another architecture; both sides are listed."""


class RunError(ZooError, RuntimeError):
    """A run folder that cannot be used as asked: finished, unfinished, or of another recipe."""


class ExportError(ZooError, RuntimeError):
    """A model that a format cannot hold, or whose file answers otherwise than the model."""


def did_you_mean(name: str, known: Iterable[str], limit: int = 5) -> str:
    """Returns ` Did you mean a, b?` with the closest known names, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=limit, cutoff=0.6)
    return f" Did you mean {', '.join(close)}?" if close else ""
