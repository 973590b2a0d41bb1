"""rosbag2 recordings, MCAP or sqlite3, through the library ``rosbags``; ROS is not needed."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirage_sim.data.recordings.bag_messages import (
    depth_of,
    image_of,
    is_colour,
    is_depth,
    lens_of_message,
    stamp_of,
)
from mirage_sim.data.recordings.lens import Lens
from mirage_sim.data.recordings.poses import nearest
from mirage_sim.data.recordings.recording import Array, Depth, Image, Recording
from mirage_sim.data.recordings.transform_tree import TransformTree
from mirage_sim.models.pretrained import require

IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO, ODOMETRY, TRANSFORMS = "sensor_msgs/msg/CameraInfo", "nav_msgs/msg/Odometry", "tf2_msgs/msg/TFMessage"
ROLES = {"image": IMAGES, "camera_info": (CAMERA_INFO,), "depth": IMAGES, "odometry": (ODOMETRY,)}  # and their types
MAX_TOLERANCE = 0.05  # seconds between an image and its depth, at most half an interval between images
_SAME = 0.02  # relative difference of the intrinsics of image and depth of one camera
_SEEK = 64  # messages from which on seeking is quicker than reading over them
_LOG = logging.getLogger(__name__)


class BagReader:
    """Messages of an open bag, with errors of ours. The types are ROS's own, whatever definitions the bag brings."""

    def __init__(self, source: Path, bag: Any):
        typesys = require("rosbags.typesys", "'mirage_sim[data]'")
        self._source, self._bag = source, bag
        self._store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
        self.types: dict[str, str] = {each.topic: each.msgtype for each in bag.connections if each.msgcount}

    def topics(self, *kinds: str) -> list[str]:
        """Names of the topics of these types that have messages, sorted."""
        return sorted(topic for topic, kind in self.types.items() if kind in kinds)

    def messages(self, topics: Sequence[str], start: int | None = None) -> Iterator[tuple[str, int, bytes]]:
        """Topic, log time (ns) and serialised content of messages, in the order of the log."""
        connections = [each for each in self._bag.connections if each.topic in topics]
        with _translated(self._source):
            for connection, time, data in self._bag.messages(connections, start=start):
                yield connection.topic, time, data

    def decode(self, topic: str, data: bytes) -> Any:
        """A message as an object."""
        with _translated(self._source):
            return self._store.deserialize_cdr(data, self.types[topic])

    def first(self, topic: str) -> Any:
        """The first message of a topic."""
        for _, _, data in self.messages([topic]):
            return self.decode(topic, data)
        raise ValueError(f"{self._source}: expected messages of {topic}, got none")


@contextmanager
def _translated(source: Path) -> Iterator[None]:
    """Errors of ``rosbags``, and of what it builds on, as ours."""
    try:
        yield
    except (GeneratorExit, ImportError):
        raise
    except Exception as error:  # whatever a damaged file does to its reader
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{source}: expected a whole rosbag2 recording (MCAP or sqlite3): {reason[:200]}") from error


@contextmanager
def open_bag(source: Path) -> Iterator[BagReader]:
    """Open a bag for reading.

    Raises:
        ImportError: if ``rosbags`` is not installed.
        ValueError: if the bag is damaged.
    """
    rosbag2 = require("rosbags.rosbag2", "'mirage_sim[data]'")
    with _translated(source):
        bag = rosbag2.Reader(_bag_of(source))
        bag.open()
    try:
        yield BagReader(source, bag)
    finally:
        bag.close()


def _bag_of(source: Path) -> Path:
    """What ``rosbags`` opens: a folder with metadata, or a file, alone in a folder if that has lost its metadata."""
    if source.is_file() or (source / "metadata.yaml").exists():
        return source
    return _storages(source)[0]


def _storages(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in (".mcap", ".db3"))


@dataclass
class _Series:
    """Messages of one topic whose stamps ascend: seconds, log times, and their numbers among all of the topic."""

    stamps: list[float] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    log: list[int] = field(default_factory=list)  # of all messages

    def add(self, stamp: float, time: int) -> None:
        if not self.stamps or stamp > self.stamps[-1]:
            self.stamps.append(stamp)
            self.numbers.append(len(self.log))
        self.log.append(time)


@dataclass(frozen=True)
class _Topics:
    """Topics that are read, their lens, the optical frame and notes."""

    image: str
    camera_info: str
    depth: str | None
    odometry: str | None
    odometry_named: bool  # so that it comes before /tf
    lens: Lens
    frame: str
    notes: tuple[str, ...]


class BagRecording(Recording):
    """A rosbag2 folder, or the MCAP or sqlite3 file in it.

    The file is read once when it is opened, for stamps and poses.

    Args:
        source: folder or file.
        topics: names of topics by role (:data:`ROLES`); others are chosen by type and name.

    Raises:
        ImportError: if ``rosbags`` is not installed.
        ValueError: for damaged bags, and those without images, intrinsics or poses.
    """

    layout = "rosbag2"

    def __init__(self, source: Path, topics: Mapping[str, str] | None = None):
        with open_bag(source) as bag:
            chosen = _choose(source, bag, topics or {})
            images, depths, tree = _scan(bag, chosen)
        self._topics, self._image_log, self._depth_log = chosen, images.log, depths.log
        stamps = np.array(images.stamps)
        c2w, known, chain = tree.camera(source, chosen.frame, stamps)
        if not known.any():
            first, last = tree.span(chosen.frame)
            raise ValueError(
                f"{source}: expected poses at the stamps of {chosen.image}, got images from {stamps[0]:.3f} to "
                f"{stamps[-1]:.3f} s and poses of {chain} from {first:.3f} to {last:.3f} s"
            )
        posed = np.flatnonzero(known)
        self._image_numbers = [images.numbers[i] for i in posed]
        notes = [*chosen.notes]
        if left := len(images.log) - len(posed):
            notes.append(f"{left} of {len(images.log)} images have no pose or a stamp out of order and were left out")
        found = _depth_numbers(source, chosen, stamps[posed], depths)
        self._depth_numbers = [depths.numbers[i] if i >= 0 else None for i in found]
        sources = {"image": chosen.image, "intrinsics": chosen.camera_info, "poses": chain}
        if chosen.depth:
            sources["depth"] = chosen.depth
        super().__init__(source, stamps[posed], c2w[posed], [chosen.lens], found >= 0, sources, notes)

    @classmethod
    def matches(cls, source: Path) -> bool:
        """Whether this is an MCAP or sqlite3 file, or a folder with metadata or one such file."""
        if source.is_file():
            return source.suffix in (".mcap", ".db3")
        return (source / "metadata.yaml").exists() or len(_storages(source)) == 1

    def _load(self, numbers: Sequence[int]) -> Iterator[tuple[Image, Depth | None]]:
        image_topic, depth_topic = self._topics.image, self._topics.depth
        depth_numbers = [self._depth_numbers[number] for number in numbers]
        with open_bag(self.source) as bag:
            images = _messages(bag, image_topic, [self._image_numbers[number] for number in numbers], self._image_log)
            wanted = [number for number in depth_numbers if number is not None]
            depths = _messages(bag, depth_topic, wanted, self._depth_log) if depth_topic else iter(())
            for message, number in zip(images, depth_numbers, strict=True):
                image = image_of(self.source, image_topic, message)
                yield image, None if number is None else depth_of(self.source, str(depth_topic), next(depths))


def _messages(bag: BagReader, topic: str, numbers: Sequence[int], log: Sequence[int]) -> Iterator[Any]:
    """Messages of a topic by their ascending numbers (some may repeat); ``log`` holds the log times of all."""
    sorted_log = bool((np.diff(np.array(log)) >= 0).all())
    stream, position, message, last = bag.messages([topic]), 0, None, -1
    for number in numbers:
        if sorted_log and number - position > _SEEK:
            position = int(np.searchsorted(log, log[number]))
            stream = bag.messages([topic], start=log[number])
        while position <= number:
            data = next(stream, (topic, 0, b""))[2]
            position += 1
        if number != last:
            message, last = bag.decode(topic, data), number
        yield message


def _scan(bag: BagReader, chosen: _Topics) -> tuple[_Series, _Series, TransformTree]:
    """Stamps of images and depth, and all transforms: one pass over the bag."""
    images, depths, tree = _Series(), _Series(), TransformTree()
    series = {chosen.image: images, chosen.depth: depths}
    transforms = [topic for topic in bag.topics(TRANSFORMS) if topic.endswith(("/tf", "/tf_static"))]
    odometry = TransformTree()
    wanted = [topic for topic in (chosen.image, chosen.depth, chosen.odometry) if topic]
    for topic, time, data in bag.messages([*wanted, *transforms]):
        if topic in series:
            series[topic].add(stamp_of(data), time)
        elif topic == chosen.odometry:
            odometry.add_odometry(bag.decode(topic, data))
        else:
            tree.add(bag.decode(topic, data), topic.endswith("_static"))
    tree.adopt(odometry, chosen.odometry_named)
    return images, depths, tree


def _depth_numbers(source: Path, chosen: _Topics, stamps: Array, depths: _Series) -> NDArray[np.int64]:
    """Which depth belongs to each image; -1 for none."""
    interval = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 2 * MAX_TOLERANCE
    tolerance = min(interval / 2, MAX_TOLERANCE)
    found = nearest(np.array(depths.stamps), stamps, tolerance)
    if chosen.depth and (found < 0).all():
        raise ValueError(
            f"{source}: expected stamps of {chosen.depth} within {tolerance:.3f} s of those of {chosen.image}, got "
            f"{depths.stamps[0]:.3f} to {depths.stamps[-1]:.3f} s and {stamps[0]:.3f} to {stamps[-1]:.3f} s"
        )
    return found


def _choose(source: Path, bag: BagReader, asked: Mapping[str, str]) -> _Topics:
    """The topics to read."""
    have = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(bag.types.items())) or "none"
    for role, topic in asked.items():
        if role not in ROLES:
            raise ValueError(f"topics: expected roles among {[*ROLES]}, got {role!r}")
        if bag.types.get(topic) not in ROLES[role]:
            raise ValueError(f"{source}: expected a topic {topic} ({' or '.join(ROLES[role])}), got topics {have}")
    firsts = {topic: bag.first(topic) for topic in bag.topics(*IMAGES)}
    infos = bag.topics(CAMERA_INFO)
    colours = [topic for topic, message in firsts.items() if is_colour(message)]
    if not (image := asked.get("image") or min(colours, key=lambda topic: _rank(topic, firsts, infos), default=None)):
        raise ValueError(f"{source}: expected a topic of colour images ({' or '.join(IMAGES)}), got topics {have}")
    info = asked.get("camera_info") or _info_of(image, infos) or (infos[0] if len(infos) == 1 else None)
    if info is None:
        raise ValueError(
            f"{source}: expected intrinsics in {_sibling(image)} ({CAMERA_INFO}) for {image}, got topics {have}"
        )
    message = bag.first(info)
    lens = lens_of_message(source, info, message, rectified="_rect" in image or "/rect" in image)
    others = [topic for topic in colours if _info_of(topic, infos) not in (None, info)]
    notes = [f"other cameras were left out: {', '.join(others)}"] if others else []
    depth = asked.get("depth") or _depth_topic(bag, firsts, message, notes)
    odometry = asked.get("odometry") or next(iter(bag.topics(ODOMETRY)), None)
    if not odometry and not bag.topics(TRANSFORMS):
        raise ValueError(f"{source}: expected poses in /tf ({TRANSFORMS}) or {ODOMETRY}, got topics {have}")
    for note in notes:
        _LOG.warning("%s: %s", source, note)
    frame = message.header.frame_id or firsts[image].header.frame_id
    return _Topics(image, info, depth, odometry, "odometry" in asked, lens, frame, tuple(notes))


def _sibling(topic: str) -> str:
    """The topic of a camera's intrinsics, by ROS's convention: beside its images, before their transport."""
    base = topic.removesuffix("/compressed").removesuffix("/compressedDepth")
    return f"{base.rpartition('/')[0]}/camera_info"


def _info_of(topic: str, infos: Sequence[str]) -> str | None:
    return _sibling(topic) if _sibling(topic) in infos else None


def _rank(topic: str, firsts: Mapping[str, Any], infos: Sequence[str]) -> tuple[bool, bool, bool, bool, str]:
    """Sorts topics of colour images: with intrinsics, in colour, named so, uncompressed, by name."""
    grey = getattr(firsts[topic], "encoding", "") == "mono8"
    named = any(word in topic for word in ("rgb", "color", "colour"))
    return _info_of(topic, infos) is None, grey, not named, hasattr(firsts[topic], "format"), topic


def _depth_topic(bag: BagReader, firsts: Mapping[str, Any], camera: Any, notes: list[str]) -> str | None:
    """The depth that shows what the image shows, pixel for pixel; a note if there is only other depth."""
    infos = bag.topics(CAMERA_INFO)
    topics = [topic for topic, message in firsts.items() if is_depth(message)]
    topics.sort(key=lambda topic: (not any(word in topic for word in ("aligned", "registered")), topic))
    for topic in topics:
        info = _info_of(topic, infos)
        if info is None or _same_camera(camera, bag.first(info)):
            return topic
    if topics:
        notes.append(
            f"depth was left out: {', '.join(topics)} is of another camera than the images; record depth that is "
            "aligned to the colour camera"
        )
    return None


def _same_camera(one: Any, other: Any) -> bool:
    """Whether two ``sensor_msgs/CameraInfo`` are of one camera, at any resolution."""
    shares = [
        np.array([info.k[0], info.k[2], info.k[4], info.k[5]])
        / np.maximum([info.width, info.width, info.height, info.height], 1)
        for info in (one, other)
    ]
    return one.header.frame_id == other.header.frame_id and bool(np.abs(shares[0] - shares[1]).max() < _SAME)
