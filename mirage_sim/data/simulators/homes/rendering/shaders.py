"""The GLSL programs of the renderer.

Light, colours and their products are stored as square roots, which makes better use of 8 bits in the dark; square roots
can be multiplied like the values themselves. The last pass works in linear light.
"""

RANGE = 4.0  # linear radiance of the largest value in light maps and unresolved images

SURFACE_VERTEX = """
uniform mat4 view_projection;
in vec3 position;
in vec3 texture_place;
in vec3 light;
in vec2 light_map_place;
out vec3 at;
out vec3 lit;
out vec2 map_at;
void main() {
    gl_Position = view_projection * vec4(position, 1);
    at = texture_place;
    lit = light;
    map_at = light_map_place;
}
"""

# a mover is lit by the light at its centre, which arrives from six sides
MOVER_VERTEX = """
uniform mat4 view_projection;
uniform mat4 pose;
uniform vec3 sides[6];
in vec3 position;
in vec3 normal;
in vec3 texture_place;
in vec3 light;
out vec3 at;
out vec3 lit;
void main() {
    gl_Position = view_projection * pose * vec4(position, 1);
    vec3 n = mat3(pose) * normal;
    vec3 arriving = n.x * n.x * sides[n.x > 0 ? 0 : 1] + n.y * n.y * sides[n.y > 0 ? 2 : 3]
                  + n.z * n.z * sides[n.z > 0 ? 4 : 5];
    at = texture_place;
    lit = light * sqrt(arriving / RANGE);
}
"""

SURFACE_FRAGMENT = """
uniform sampler2DArray textures;
uniform sampler2D light_map;
in vec3 at;
in vec3 lit;
in vec2 map_at;
out vec4 result;
void main() {
    vec4 texel = texture(textures, at);
#ifdef CUTOUT
    if (texel.a < 0.5) discard;
#endif
    result = vec4(texel.rgb * lit * texture(light_map, map_at).rgb, 0);
}
"""

MOVER_FRAGMENT = """
uniform sampler2DArray textures;
in vec3 at;
in vec3 lit;
out vec4 result;
void main() {
    vec4 texel = texture(textures, at);
    if (texel.a < 0.5) discard;
    result = vec4(texel.rgb * lit, 1);
}
"""

# a triangle that covers the whole image, at the largest depth
SCREEN_VERTEX = """
uniform mat4 unproject;
out vec3 ray;
void main() {
    vec4 place = vec4(2.0 * vec2(gl_VertexID & 2, (gl_VertexID << 1) & 2) - 1.0, 1, 1);
    ray = (unproject * place).xyz;
    gl_Position = place;
}
"""

SKY_FRAGMENT = """
uniform vec3 daylight;
in vec3 ray;
out vec4 result;
void main() {
    float up = normalize(ray).y;
    vec3 sky = mix(vec3(1.1, 1.08, 1.05), vec3(0.5, 0.72, 1.0), sqrt(clamp(up, 0, 1)));
    vec3 ground = vec3(0.25, 0.24, 0.18);
    result = vec4(sqrt(daylight * mix(ground, sky, smoothstep(-0.03, 0.03, up)) / RANGE), 0);
}
"""

# There are 3 x 3 samples per pixel, half a pixel apart. The image is their mean with a tent filter, the depth is that
# of the sample at the pixel centre, and the mask is 0 if any of them shows a mover.
RESOLVE_FRAGMENT = """
uniform sampler2D samples;
uniform sampler2D sample_depth;
layout(location = 0) out vec4 image;
layout(location = 1) out float depth;
void main() {
    ivec2 corner = 2 * ivec2(gl_FragCoord.xy);
    vec4 sum = vec4(0);
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 3; x++) {
            vec4 here = texelFetch(samples, corner + ivec2(x, y), 0);
            sum += here * here * float((1 + (x & 1)) * (1 + (y & 1)));
        }
    vec3 light = sum.rgb * (RANGE / 16);
    light *= 1.5;
    light *= (1 + light / 9) / (1 + light);
    vec3 srgb = mix(12.92 * light, 1.055 * pow(light, vec3(1 / 2.4)) - 0.055, step(0.0031308, light));
    image = vec4(srgb, sum.a > 0 ? 0 : 1);
    float d = texelFetch(sample_depth, corner + 1, 0).r;
    depth = d == 1 ? SKY_DEPTH : 2 * NEAR * FAR / (FAR + NEAR - (2 * d - 1) * (FAR - NEAR));
}
"""
