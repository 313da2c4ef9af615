"""A starter configuration, with roles and features proposed from a data file's columns."""

from __future__ import annotations

from siftline.cli.starter.configuration import plain_name, starter_config
from siftline.cli.starter.roles import Asked

__all__ = ["Asked", "plain_name", "starter_config"]
