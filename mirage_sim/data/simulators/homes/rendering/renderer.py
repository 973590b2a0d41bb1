"""Rendering of scenes with OpenGL, on a GPU or with Mesa's software renderer.

:class:`Renderer` needs the ``homes`` extra and EGL (Debian: ``libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri``); importing
this module needs neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mirage_sim.data.simulators.homes.rendering import shaders
from mirage_sim.data.simulators.homes.rendering.culling import Culling
from mirage_sim.data.simulators.homes.rendering.gl_context import HeadlessContext
from mirage_sim.data.simulators.homes.rendering.light_field import LINEAR, LightField
from mirage_sim.data.simulators.homes.rendering.light_map import LightMap
from mirage_sim.data.simulators.homes.scene import TEXTURE_SIZE, Mesh, Scene
from mirage_sim.geometry import Camera

NEAR, FAR = 0.05, 200.0  # metres
SKY_DEPTH = 100.0
_RGB10_A2 = 0x8059  # as in GL/glcorearb.h
_SIDES = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float32)
_VERTEX = [(name, "f4", 3) for name in ("position", "normal", "texture_place")] + [
    ("light", "u1", 4),
    ("light_map_place", "f4", 2),
]
_TEXTURES, _LIGHT_MAP, _SAMPLES, _SAMPLE_DEPTH = range(4)  # texture units


@dataclass(frozen=True)
class Rendering:
    """The view of a camera.

    Attributes:
        image: uint8 ``[H, W, 3]``, sRGB.
        depth: float32 ``[H, W]``, z-depth at the pixel centres in metres; 100 for the sky.
        static: bool ``[H, W]``, False where any part of a pixel shows a mover.
    """

    image: np.ndarray
    depth: np.ndarray
    static: np.ndarray


class Renderer:
    """A renderer of one scene at a time.

    Several renderers and other users of OpenGL can take turns in one process.

    Args:
        size: image ``(height, width)`` in pixels.

    Attributes:
        description: ``renderer`` and ``version`` of OpenGL. With equal ones, a scene and a camera give the same bits.

    Raises:
        ImportError: if moderngl or EGL is missing.
    """

    def __init__(self, size: tuple[int, int] = (96, 128)):
        self.size = size
        height, width = size
        self._gl = HeadlessContext()
        with self._gl as context:
            self.description = {"renderer": context.info["GL_RENDERER"], "version": context.info["GL_VERSION"]}
            self._surface = _program(context, shaders.SURFACE_VERTEX, shaders.SURFACE_FRAGMENT)
            self._cutout = _program(context, shaders.SURFACE_VERTEX, "#define CUTOUT\n" + shaders.SURFACE_FRAGMENT)
            self._mover = _program(context, shaders.MOVER_VERTEX, shaders.MOVER_FRAGMENT)
            self._sky = _program(context, shaders.SCREEN_VERTEX, shaders.SKY_FRAGMENT)
            self._resolve = _program(context, shaders.SCREEN_VERTEX, shaders.RESOLVE_FRAGMENT)
            for program in (self._surface, self._cutout):
                program["light_map"] = _LIGHT_MAP
            self._resolve["samples"], self._resolve["sample_depth"] = _SAMPLES, _SAMPLE_DEPTH
            self._draw_sky, self._draw_resolved = (
                context.vertex_array(program, []) for program in (self._sky, self._resolve)
            )
            # one sample every half pixel, including both edges of the image
            self._samples = context.texture((2 * width + 1, 2 * height + 1), 4, internal_format=_RGB10_A2)
            self._sample_depth = context.depth_texture(self._samples.size)
            self._sample_depth.compare_func = ""
            self._unresolved = context.framebuffer([self._samples], self._sample_depth)
            outputs = context.texture((width, height), 4), context.texture((width, height), 1, dtype="f4")
            self._resolved = context.framebuffer(outputs)
            context.depth_func = "<="
        self._loaded: _Loaded | None = None

    def load(self, scene: Scene) -> None:
        """Compute the light of a scene and upload it.

        Raises:
            ValueError: if no part is in a room, a mesh is not finite, or it uses a missing texture. The previous scene
                then stays loaded.
        """
        if len(scene.rooms) != len(scene.parts) or max(scene.rooms, default=-1) < 0:
            raise ValueError(f"scene: expected a room for each of {len(scene.parts)} parts, got {scene.rooms}")
        for mesh in (*scene.parts, *scene.movers):
            if not (np.isfinite(mesh.positions).all() and np.abs(mesh.normals).max() < 1.01):
                raise ValueError("scene: expected meshes with finite positions and normals of length 1, got others")
        used = max(int(mesh.layer.max()) for mesh in (*scene.parts, *scene.movers))
        if used >= len(scene.textures):
            raise ValueError(f"scene.textures: expected {used + 1} or more layers, got {len(scene.textures)}")
        with self._gl as context:
            loaded = _Loaded(context, scene, self._surface, self._cutout, self._mover)
            if self._loaded:
                self._loaded.release()
            self._loaded = loaded
            self._sky["daylight"] = scene.daylight

    def render(self, camera: Camera, mover_poses: Sequence[np.ndarray] = ()) -> Rendering:
        """Draw the loaded scene.

        Args:
            camera: batch shape ``[]``, with the size of this renderer and any intrinsics.
            mover_poses: for each mover of the scene, its pose in the world frame ``[4, 4]``. Without poses no mover is
                drawn.

        Raises:
            ValueError: if no scene is loaded, or the camera or the poses do not fit.
        """
        loaded = self._loaded
        if loaded is None:
            raise ValueError("scene: expected load() before render(), got none")
        if camera.size != self.size or camera.batch_shape:
            raise ValueError(f"camera: expected one of size {self.size}, got {list(camera.batch_shape)} {camera.size}")
        if len(mover_poses) not in (0, loaded.movers):
            raise ValueError(f"mover_poses: expected {loaded.movers} or none, got {len(mover_poses)}")
        c2w = camera.c2w.double().numpy()
        view_projection = self._projection(camera.K.double().numpy()) @ np.linalg.inv(c2w)
        visible = loaded.culling.visible(view_projection, c2w[:3, 3])
        height, width = self.size
        with self._gl as context:
            self._unresolved.use()
            self._unresolved.clear(depth=1.0)
            context.enable_only(context.DEPTH_TEST)
            loaded.draw(visible, _matrix(view_projection))
            for number, pose in enumerate(mover_poses):
                loaded.draw_mover(number, np.asarray(pose), _matrix(view_projection))
            from_eye = np.eye(4)
            from_eye[:3, 3] = -c2w[:3, 3]
            self._sky["unproject"].write(_matrix(from_eye @ np.linalg.inv(view_projection)))
            self._draw_sky.render(vertices=3)
            self._resolved.use()
            context.enable_only(context.NOTHING)
            self._samples.use(_SAMPLES)
            self._sample_depth.use(_SAMPLE_DEPTH)
            self._draw_resolved.render(vertices=3)
            image = np.frombuffer(self._resolved.read(components=4), np.uint8).reshape(height, width, 4)
            depth = np.frombuffer(self._resolved.read(components=1, attachment=1, dtype="f4"), np.float32)
        return Rendering(image[..., :3].copy(), depth.reshape(height, width).copy(), image[..., 3] > 0)

    def close(self) -> None:
        """Free the graphics context."""
        self._gl.release()

    def _projection(self, intrinsics: np.ndarray) -> np.ndarray:
        """Return the projection from camera axes to clip coordinates; sample ``s`` is at pixel coordinate ``s / 2``."""
        height, width = self.size
        across, down = 1 / (2 * width + 1), 1 / (2 * height + 1)
        to_samples = np.array([[4 * across, 0, across - 1], [0, 4 * down, down - 1], [0, 0, 1]])
        projection = np.zeros((4, 4))
        projection[[0, 1, 3], :3] = to_samples @ intrinsics
        projection[2, 2:] = (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)
        return projection


class _Loaded:
    """A lit scene in graphics memory.

    Attributes:
        culling: selects the parts that a camera can see.
        movers: number of movers.
    """

    def __init__(self, context: Any, scene: Scene, surface: Any, cutout: Any, mover: Any):
        self.culling = Culling(scene)
        self.movers = len(scene.movers)
        self._programs = surface, cutout, mover
        self._centres = [(mesh.positions.min(0) + mesh.positions.max(0)) / 2 for mesh in scene.movers]
        self._field = LightField(scene)
        light_map = LightMap(scene.parts)
        meshes = (*scene.parts, *scene.movers)
        vertices = _vertices(meshes, light_map, self._field)
        commands = _commands(meshes)
        has_holes = scene.textures[..., 3].min((1, 2)) < 128
        self._has_holes = np.array([has_holes[part.layer].any() for part in scene.parts], bool)
        self._part_commands, self._mover_commands = commands[: len(scene.parts)], commands[len(scene.parts) :]

        texels = np.full((light_map.size[1] * light_map.size[0], 4), 255, np.uint8)
        texels[light_map.texels, :3] = _root_bytes(
            self._field.irradiance(light_map.points, light_map.normals) / shaders.RANGE
        )
        textures = scene.textures.copy()
        textures[..., :3] = _root_bytes(LINEAR)[textures[..., :3]]
        self._textures = context.texture_array((TEXTURE_SIZE, TEXTURE_SIZE, len(textures)), 4, textures)
        self._textures.build_mipmaps()
        self._textures.filter = context.LINEAR_MIPMAP_LINEAR, context.LINEAR
        self._light_map = context.texture(light_map.size, 4, texels)
        self._vertices = context.buffer(vertices)
        self._indices = context.buffer(np.concatenate([mesh.faces for mesh in meshes]).astype(np.uint32))
        self._indirect = context.buffer(reserve=max(commands.nbytes, 1))
        self._drawn = [
            context.vertex_array(program, [(self._vertices, layout, *names)], self._indices)
            for program, layout, *names in (
                (surface, "3f4 12x 3f4 4f1 2f4", "position", "texture_place", "light", "light_map_place"),
                (cutout, "3f4 12x 3f4 4f1 2f4", "position", "texture_place", "light", "light_map_place"),
                (mover, "3f4 3f4 3f4 4f1 8x", "position", "normal", "texture_place", "light"),
            )
        ]

    def draw(self, parts: np.ndarray, view_projection: bytes) -> None:
        """Draw parts with these indices in this order, except that parts with holes come last."""
        self._textures.use(_TEXTURES)
        self._light_map.use(_LIGHT_MAP)
        with_holes = self._has_holes[parts]
        for number, chosen in enumerate((parts[~with_holes], parts[with_holes])):
            self._programs[number]["view_projection"].write(view_projection)
            self._draw(number, self._part_commands[chosen])

    def draw_mover(self, number: int, pose: np.ndarray, view_projection: bytes) -> None:
        """Draw one mover at a pose."""
        program = self._programs[2]
        program["view_projection"].write(view_projection)
        program["pose"].write(_matrix(pose))
        centre = pose[:3, :3] @ self._centres[number] + pose[:3, 3]
        sides = self._field.irradiance(np.tile(centre.astype(np.float32), (6, 1)), _SIDES)
        program["sides"].write(sides.tobytes())
        self._draw(2, self._mover_commands[number : number + 1])

    def _draw(self, number: int, commands: np.ndarray) -> None:
        if len(commands):
            self._indirect.write(commands)
            self._drawn[number].render_indirect(self._indirect, count=len(commands))

    def release(self) -> None:
        """Free the graphics memory."""
        for each in (*self._drawn, self._indirect, self._indices, self._vertices, self._light_map, self._textures):
            each.release()


def _vertices(meshes: Sequence[Mesh], light_map: LightMap, field: LightField) -> np.ndarray:
    """Return the vertices of parts and movers in the layout of the programs, with light for parts that are not flat."""
    counts = [len(mesh.positions) for mesh in meshes]
    parts = len(light_map.places)
    vertices = np.zeros(sum(counts), _VERTEX)
    vertices["position"] = np.concatenate([mesh.positions for mesh in meshes])
    vertices["normal"] = np.concatenate([mesh.normals for mesh in meshes])
    vertices["texture_place"][:, :2] = np.concatenate([mesh.uv for mesh in meshes]) * [1, -1]  # row 0 is the top
    vertices["texture_place"][:, 2] = np.concatenate([mesh.layer for mesh in meshes])
    vertices["light_map_place"][: sum(counts[:parts])] = np.concatenate(light_map.places)
    light = LINEAR[np.concatenate([mesh.colour for mesh in meshes])]
    curved = np.repeat([number < parts and not mesh.is_flat for number, mesh in enumerate(meshes)], counts)
    light[curved] *= field.irradiance(vertices["position"][curved], vertices["normal"][curved]) / shaders.RANGE
    vertices["light"][:, :3] = _root_bytes(light)
    return vertices


def _commands(meshes: Sequence[Mesh]) -> np.ndarray:
    """Return a command of ``glMultiDrawElementsIndirect`` for each mesh: uint32 ``[N, 5]``.

    The columns are the numbers of indices and instances, and the first index, vertex and instance.
    """
    indices = np.array([mesh.faces.size for mesh in meshes])
    vertices = np.array([len(mesh.positions) for mesh in meshes])
    ones, zeros = np.ones_like(indices), np.zeros_like(indices)
    columns = [indices, ones, indices.cumsum() - indices, vertices.cumsum() - vertices, zeros]
    return np.stack(columns, -1).astype(np.uint32)


def _root_bytes(linear: np.ndarray) -> np.ndarray:
    """Encode the square roots of numbers in [0, 1] as bytes; larger numbers are clipped."""
    return (np.sqrt(np.minimum(linear, 1)) * 255 + 0.5).astype(np.uint8)


def _matrix(matrix: np.ndarray) -> bytes:
    """Encode a matrix for GLSL: float32 in column-major order."""
    return matrix.T.astype(np.float32).tobytes()


def _program(context: Any, vertex: str, fragment: str) -> Any:
    constants = {"RANGE": shaders.RANGE, "NEAR": NEAR, "FAR": FAR, "SKY_DEPTH": SKY_DEPTH}
    header = "#version 430\n" + "".join(f"#define {name} {value}\n" for name, value in constants.items())
    return context.program(vertex_shader=header + vertex, fragment_shader=header + fragment)
