"""Plan by trial: fork the world, walk a few steps in each fork, and take the best plan in the world itself.

python examples/03_snapshot_and_fork.py --steps 5
"""

import argparse

import gymnasium as gym
import numpy as np

import mirage_sim  # noqa: F401  (registers MirageWorld-v0)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=5, help="to look ahead")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

env = gym.make("MirageWorld-v0", task="explore").unwrapped
env.reset(seed=args.seed)

# Three futures. Forks share their past with the environment; their steps change nothing outside them.
plans = {"left": [0.5, 1.0], "straight": [1.0, 0.0], "right": [0.5, -1.0]}
explored = {}
for fork, (name, command) in zip(env.fork(len(plans)), plans.items(), strict=True):
    action = np.array(command, dtype=np.float32)
    explored[name] = sum(fork.step(action)[1] for _ in range(args.steps))
    print(f"{name:<8} would explore {explored[name]:.1f} m2")

# The environment itself has not moved. A snapshot is a reference, and restoring it is exact.
before = env.snapshot()
best = np.array(plans[max(explored, key=explored.__getitem__)], dtype=np.float32)
first = [env.step(best)[0] for _ in range(args.steps)]
env.restore(before)
again = [env.step(best)[0] for _ in range(args.steps)]
print(f"went twice; the frames were {'the same, bit for bit' if np.array_equal(first, again) else 'different'}")
