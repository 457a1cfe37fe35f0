"""Benchmarks on one core: `OMP_NUM_THREADS=1 python -m tests.bench [asf gated ...]`; all of them take ten minutes."""

import argparse

from tests.bench import (
    bench_asf,
    bench_backbones,
    bench_decode,
    bench_finetune,
    bench_gated,
    bench_i3d,
    bench_import,
    bench_labels,
    bench_score,
    bench_store,
)
from tests.bench.table import HEADER, line

BENCHMARKS = {
    "asf": bench_asf,
    "gated": bench_gated,
    "i3d": bench_i3d,
    "labels": bench_labels,
    "score": bench_score,
    "store": bench_store,
    "import": bench_import,
    "decode": bench_decode,
    "backbones": bench_backbones,
    "finetune": bench_finetune,
}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
names = parser.parse_args().names or [*BENCHMARKS]
if unknown := {*names} - {*BENCHMARKS}:
    parser.error(f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(BENCHMARKS)}")
line(*HEADER)
for name in names:
    BENCHMARKS[name].main()
