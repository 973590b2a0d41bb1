"""Collect episodes with several worker processes. If it is killed, the same command continues it.

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
parser.add_argument("--address", default="null", help="of a running cluster; by default Ray starts on this machine")
parser.add_argument("--output", default="episodes")
args = parser.parse_args()

# The settings of `mirage rollout`. Each worker generates four episodes as one batch.
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

metrics = rollout(settings)
print(f"{metrics['steps']} steps; {metrics['remembered']:.0%} of the frames was remembered, the rest generated")

# Each episode is one file with observations, actions and rewards.
files = sorted(Path(args.output).glob("episode_*.npz"))
with np.load(files[-1], allow_pickle=False) as episode:
    print(f"{len(files)} episodes; the last one has frames of shape {episode['observations/rgb'].shape}")
