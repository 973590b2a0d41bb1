#!/usr/bin/env bash
# Installs the package in every supported way, each into an environment of its own, and probes it from outside.
# The dependencies are those of $PYTHON's environment; only the package itself is installed. Takes minutes.
set -euo pipefail
PYTHON=${PYTHON:-python3}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
VERSION=$(sed -n 's:.*<version>\(.*\)</version>.*:\1:p' "$ROOT/package.xml")
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
DEPENDENCIES=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# a copy of what git does not ignore, symlinks included, so that no build leaves anything in the checkout
copy() { mkdir -p "$1" && git -C "$ROOT" ls-files -co --exclude-standard -z | (cd "$ROOT" && tar --null -T - -cf -) | tar -xf - -C "$1"; }
environment() {
  "$PYTHON" -m venv "$WORK/$1"
  echo "$DEPENDENCIES" >"$("$WORK/$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_dependencies.pth"
}
install() { "$WORK/$1/bin/python" -m pip install -q --disable-pip-version-check --no-deps "${@:2}"; }
probe() {
  echo "== $1"
  cd /
  "$WORK/$1/bin/python" "$HERE/probe.py" "$2" "$VERSION" "${@:3}"
  "$WORK/$1/bin/mirage" --help >/dev/null
  test -x "$WORK/$1/bin/mirage_world" && test -x "$WORK/$1/bin/mirage_policy"
}

copy "$WORK/source"
environment plain
install plain "$WORK/source"
probe plain "$WORK/plain" "$WORK/plain"
environment editable
install editable -e "$WORK/source"
probe editable "$WORK/source"

copy "$WORK/sdist-source"
(cd "$WORK/sdist-source" && "$PYTHON" setup.py -q sdist -d "$WORK/dist")
environment sdist
install sdist "$WORK"/dist/*.tar.gz
probe sdist "$WORK/sdist" "$WORK/sdist"
"$PYTHON" -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w "$WORK/dist" "$WORK"/dist/*.tar.gz
environment wheel
install wheel "$WORK"/dist/*.whl
probe wheel "$WORK/wheel" "$WORK/wheel"

echo "== checkout"
(cd "$WORK/sdist-source" && "$PYTHON" -c 'import sys; sys.path.insert(0, "."); import mirage_sim.envs.world_env, mirage_sim.build as b; b.compose("rollout"); print("ok", b.__file__)')

"$PYTHON" -m venv "$WORK/colcon"
"$WORK/colcon/bin/python" -m pip install -q --disable-pip-version-check colcon-common-extensions colcon-ros 'setuptools<80'
for flag in "" --symlink-install; do
  name=colcon${flag:+-symlink}
  copy "$WORK/$name-workspace/src/mirage_sim"
  (cd "$WORK/$name-workspace" && PATH="$WORK/colcon/bin:$PATH" colcon build $flag --event-handlers console_cohesion-)
  echo "== $name"
  # colcon's setup files need no ROS; the dependencies come after the workspace
  (
    set +u
    source "$WORK/$name-workspace/install/setup.bash"
    cd /
    PYTHONPATH="$PYTHONPATH:$DEPENDENCIES" "$WORK/colcon/bin/python" "$HERE/probe.py" \
      "$WORK/$name-workspace" "$VERSION" "$WORK/$name-workspace/install/mirage_sim"
  )
  for executable in mirage mirage_world mirage_policy; do
    test -x "$WORK/$name-workspace/install/mirage_sim/lib/mirage_sim/$executable"
  done
done
