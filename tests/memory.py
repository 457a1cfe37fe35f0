"""How much memory a program has taken: of this one, or in the words of a program that a test starts."""

import inspect
from pathlib import Path


def peak_mib() -> int:
    """The most that this program has had. Not getrusage: its ru_maxrss starts, in a child, with what the parent had."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024


PEAK_MIB = f"from pathlib import Path\n\n{inspect.getsource(peak_mib)}"
