"""``make soak``: ten minutes of the ROS 2 node at full rate. Fails if memory grew or a call was lost."""

import argparse
import json
import logging
import sys

from mirage_sim.ros.soak import failures, soak


def main() -> int:
    """Run it: progress on stderr, the metrics as JSON on stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        metrics = soak(parser.parse_args().seconds)
    except RuntimeError as error:
        found = [str(error)]
    else:
        print(json.dumps(metrics))
        found = failures(metrics)
    for line in found:
        print(f"soak: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
