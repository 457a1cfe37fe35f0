"""All benchmarks, on one core: `OMP_NUM_THREADS=1 python -m tests.bench`, about a minute."""

from tests.bench import bench_i3d, bench_labels, bench_store
from tests.bench.table import HEADER, line

line(*HEADER)
for benchmark in (bench_i3d, bench_labels, bench_store):
    benchmark.main()
