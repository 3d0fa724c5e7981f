"""The command ``recembed``: thin calls into the rooms before it."""

from recembed.cli.app import app, main

__all__ = ["app", "main"]
