"""The papers' claims on generated data: `OMP_NUM_THREADS=1 python -m tests.claims [NAME...]`."""

import argparse
import time

import torch

from tests.claims import asf, asf_speed, finetune, gated, mlad, stan, stld
from tests.claims.experiment import Experiment
from tests.claims.report import HEADER, lines

EXPERIMENTS: tuple[Experiment, ...] = (
    *mlad.CLAIMS,
    *stld.CLAIMS,
    *asf.CLAIMS,
    asf_speed.SpeedTuning(),
    *gated.CLAIMS,
    *stan.CLAIMS,
    finetune.Finetuning(),
)


def main() -> None:
    """Run the experiments named on the command line, or all."""
    names = [experiment.name for experiment in EXPERIMENTS]
    parser = argparse.ArgumentParser(prog="python -m tests.claims", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; none: all")
    parser.add_argument("--seeds", type=int, default=3, help="how many; default 3")
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    if unknown := set(given.names).difference(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if given.seeds < 1 or given.first_seed < 0:
        parser.error(f"--seeds is 1 or more, and --first-seed 0 or more, not {given.seeds} and {given.first_seed}")
    torch.set_num_threads(1)
    began = time.process_time()
    print(HEADER)
    for experiment in EXPERIMENTS:
        if not given.names or experiment.name in given.names:
            for line in lines(experiment, range(given.first_seed, given.first_seed + given.seeds)):
                print(line, flush=True)
    print(f"{time.process_time() - began:.0f} s of CPU time in all")


if __name__ == "__main__":
    main()
