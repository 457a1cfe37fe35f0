"""All benchmarks, on one core: `OMP_NUM_THREADS=1 python -m tests.bench`, four minutes or so."""

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

BENCHMARKS = (
    bench_asf,
    bench_gated,
    bench_i3d,
    bench_labels,
    bench_score,
    bench_store,
    bench_import,
    bench_decode,
    bench_backbones,
    bench_finetune,
)

line(*HEADER)
for benchmark in BENCHMARKS:
    benchmark.main()
