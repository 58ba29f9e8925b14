"""Shared fixtures: a private cache, so that no test reads or fills the user's."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
