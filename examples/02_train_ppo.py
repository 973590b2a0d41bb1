"""Train PPO to walk to a goal that is visible in the frames. Needs `pip install 'mirage_sim[learn]'`.

python examples/02_train_ppo.py --steps 6000
mirage rollout policy=policy.zip trust_policy=true env.task=goal env.action_mode=discrete steps=40
"""

import argparse

import gymnasium as gym

import mirage_sim  # noqa: F401  (registers MirageWorld-v0)
from mirage_sim.envs.sb3 import PPO, SB3VecEnv

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=6000)
parser.add_argument("--worlds", type=int, default=8)
parser.add_argument("--output", default="policy.zip")
args = parser.parse_args()

# Eight worlds share the networks, which generate all of them as one batch. The reward is the approach to the goal in
# metres; a magenta ball in the frame shows where the goal is.
worlds = gym.make_vec(
    "MirageWorld-v0",
    num_envs=args.worlds,
    task="goal",
    action_mode="discrete",
    max_episode_steps=40,
    autoreset_mode="SameStep",
)
batch = min(64, max(args.steps // args.worlds, 2))  # steps of each world between two updates
policy = PPO(
    "CnnPolicy", SB3VecEnv(worlds), n_steps=batch, batch_size=128, n_epochs=6, gamma=0.95, seed=0, device="cpu"
)
policy.learn(args.steps)
policy.save(args.output)
print(f"saved {args.output} after {policy.num_timesteps} steps")

# Run the policy.
frames, _ = worlds.reset(seed=1000)
reached = ended = 0
for _ in range(min(args.steps, 50)):
    actions, _ = policy.predict(frames, deterministic=True)
    frames, _, terminated, truncated, info = worlds.step(actions)
    reached, ended = reached + terminated.sum(), ended + (terminated | truncated).sum()
print(f"reached the goal in {reached} of {ended} episodes")
