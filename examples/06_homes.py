"""Render furnished apartments of the reference simulator: image and depth of the first view of each, as one sheet.

python examples/06_homes.py --homes 24 --output homes.jpg
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from mirage_sim.data.simulators import SHIPPED_SEEDS, make_simulator

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--homes", type=int, default=24)
parser.add_argument("--columns", type=int, default=6)
parser.add_argument(
    "--environment", default="procedural", help="procedural; or seen, which needs `mirage prepare furniture`"
)
parser.add_argument("--first-seed", type=int, default=SHIPPED_SEEDS.start)
parser.add_argument("--output", type=Path, default=Path("homes.jpg"))
args = parser.parse_args()

simulator = make_simulator("homes", args.environment, size=(192, 256))
tiles = []
for seed in range(args.first_seed, args.first_seed + args.homes):
    simulator.reset(seed)
    image, depth = simulator.render()
    nearness = 1.0 - np.log(depth.clip(0.3, 20.0) / 0.3) / np.log(20.0 / 0.3)  # 0.3 m to 20 m
    coloured = cv2.applyColorMap((255 * nearness).astype(np.uint8), cv2.COLORMAP_TURBO)
    tiles.append(np.vstack([image[..., ::-1], coloured]))
simulator.close()

tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % args.columns)
rows = [np.hstack(tiles[start : start + args.columns]) for start in range(0, len(tiles), args.columns)]
if not cv2.imwrite(str(args.output), np.vstack(rows)):
    raise SystemExit(f"output: expected a file name of an image that can be written, got {args.output}")
print(f"wrote {args.output}")
