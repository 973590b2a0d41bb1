"""Rendering: images, exact depth and masks of a scene.

* `renderer` draws a scene with OpenGL; its programs are in `shaders`, its headless context is in `gl_context`.
* `culling` finds the parts of a scene that a camera can see.
* `light_field` computes the light everywhere in a home once, when the home is loaded; `light_transport` holds the
  sweeps through its grid, and `light_map` samples it on walls, floors and other flat parts.
"""
