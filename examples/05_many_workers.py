"""Collect episodes with several worker processes. Kill it and start it again: it goes on, and no episode is made twice.

Needs `pip install 'mirage_sim[ray]'`. On a cluster whose nodes share this folder, add --address HOST:6379.

python examples/05_many_workers.py --workers 2 --episodes 32
"""

import argparse
from pathlib import Path

import numpy as np

from mirage_sim.agents.rollout import rollout
from mirage_sim.build import compose

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--episodes", type=int, default=32)
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--address", default="null", help="of a running cluster; without it Ray starts on this machine")
parser.add_argument("--output", default="episodes")
args = parser.parse_args()

# The same settings as those of `mirage rollout`. Each worker generates four episodes as one batch.
settings = compose(
    "rollout",
    [
        "backend=ray",
        f"num_workers={args.workers}",
        f"address={args.address}",
        "worlds=4",
        "policy=random",
        "format=npz",
        f"episodes={args.episodes}",
        f"steps={args.steps}",
        f"output={args.output}",
    ],
)

figures = rollout(settings)
print(f"{figures['steps']} steps; {figures['remembered']:.0%} of what was seen was remembered, the rest invented")

# An episode is one file: what was seen, what was done, what came of it.
files = sorted(Path(args.output).glob("episode_*.npz"))
with np.load(files[-1], allow_pickle=False) as episode:
    print(f"{len(files)} episodes; the last one saw frames of shape {episode['observations/rgb'].shape}")
