"""The memory as ROS messages: points, a scan and a map in plan. Fields are as in :mod:`mirage_sim.ros.conversions`."""

import math
from array import array

import numpy as np
from numpy.typing import NDArray

from mirage_sim.ros.conversions import Fields, bulk, header, stamp
from mirage_sim.ros.frames import BASE, CAMERA_HEIGHT, MAP, base_from_camera
from mirage_sim.world.occupancy import OccupancyMap

SCAN_RANGE = 20.0  # metres, equal to mirage_sim.world.body.RANGE

_FLOAT32 = 7  # of sensor_msgs/PointField


def point_cloud(
    xyz: NDArray[np.float32], rgb: NDArray[np.uint8], seconds: float, camera_height: float = CAMERA_HEIGHT
) -> Fields:
    """Return ``sensor_msgs/PointCloud2`` with x, y, z and rgb in ``map``.

    Args:
        xyz: points ``[N, 3]`` in the world (OpenCV axes), metres.
        rgb: their colours, uint8 ``[N, 3]``.
        seconds: simulation time.
        camera_height: metres.
    """
    xyz, rgb = np.asarray(xyz), np.asarray(rgb)
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise ValueError(f"xyz: expected [N, 3], got {list(xyz.shape)}")
    if rgb.shape != xyz.shape or rgb.dtype != np.uint8:
        raise ValueError(f"rgb: expected uint8 {list(xyz.shape)}, got {rgb.dtype} {list(rgb.shape)}")
    map_from_world = base_from_camera(camera_height)
    points = np.empty((len(xyz), 4), "<u4")
    points[:, :3] = (xyz @ map_from_world[:3, :3].T + map_from_world[:3, 3]).astype("<f4").view("<u4")
    red, green, blue = rgb.T.astype(np.uint32)
    points[:, 3] = red << 16 | green << 8 | blue
    names = ("x", "y", "z", "rgb")
    return {
        "header": header(seconds, MAP),
        "height": 1,
        "width": len(points),
        "fields": [{"name": name, "offset": 4 * i, "datatype": _FLOAT32, "count": 1} for i, name in enumerate(names)],
        "is_bigendian": False,
        "point_step": 16,
        "row_step": 16 * len(points),
        "data": bulk(points),
        "is_dense": bool(np.isfinite(xyz).all()),
    }


def laser_scan(ranges: NDArray[np.float32], seconds: float, scan_time: float = 0.0) -> Fields:
    """Return ``sensor_msgs/LaserScan`` in ``base_link``.

    Args:
        ranges: float32 ``[rays]``, metres from the body's axis; infinite where free, NaN where unknown (REP-117). The
            first ray points backwards, the others follow counter-clockwise, as in ``info["scan"]``.
        seconds: simulation time.
        scan_time: seconds between scans.
    """
    rays = len(ranges)
    spacing = 2 * math.pi / rays
    return {
        "header": header(seconds, BASE),
        "angle_min": -math.pi,
        "angle_max": -math.pi + (rays - 1) * spacing,
        "angle_increment": spacing,
        "time_increment": 0.0,
        "scan_time": scan_time,
        "range_min": 0.0,
        "range_max": SCAN_RANGE,
        "ranges": array("f", ranges.tolist()),
        "intensities": array("f"),
    }


def occupancy_grid(grid: OccupancyMap, seconds: float, camera_height: float = CAMERA_HEIGHT) -> Fields:
    """Return ``nav_msgs/OccupancyGrid`` in ``map``, at the height of the floor.

    Args:
        grid: 0 where free, 100 where occupied, -1 where unknown.
        seconds: simulation time.
        camera_height: metres.
    """
    (x, y), (height, width) = grid.origin, grid.cells.shape
    position = {"x": x, "y": y, "z": camera_height - grid.floor}
    return {
        "header": header(seconds, MAP),
        "info": {
            "map_load_time": stamp(seconds),
            "resolution": float(np.float32(grid.resolution)),
            "width": width,
            "height": height,
            "origin": {"position": position, "orientation": {"x": 0.0, "y": 0.0, "z": 0.0, "w": 1.0}},
        },
        "data": array("b", grid.cells.tobytes()),
    }
