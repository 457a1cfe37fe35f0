"""`python -m tests.cli.narrow_vl WORDS`: `vl WORDS` with narrow networks."""

from __future__ import annotations

import sys

from cli.main import run
from tests.extract import narrow

if __name__ == "__main__":
    narrow.install()
    sys.exit(run(sys.argv[1:]))
