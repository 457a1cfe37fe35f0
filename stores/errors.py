"""Errors that a user can mend, each with the exit code that `vl` ends with.

The command line prints such an error as one line; anything else is a bug and keeps its traceback.
"""


class VlError(Exception):
    """What is wrong, with the values, and what to do next: one line, no traceback."""

    exit_code = 2


class StoreError(VlError):
    """A store cannot give or take what was asked for."""


class SpecMismatchError(StoreError):
    """Features were made, or are wanted, with other settings; the message names the field that differs."""

    exit_code = 4


class DamageError(StoreError):
    """Bytes on disk are not those that were committed."""

    exit_code = 5


class NoSpaceError(VlError):
    """The disk or the quota is full; what was committed before is safe."""

    exit_code = 6


class InterruptedRunError(VlError):
    """A signal asked for the end; running the same command again resumes."""

    exit_code = 75
