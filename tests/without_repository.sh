#!/bin/sh
# The default tests of the source archive, with the wheel installed and nothing of the repository around.
# The dependencies are those of .venv. Arguments go to pytest: sh tests/without_repository.sh tests/test_run.py
set -e
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$python" -m hatchling build --target sdist --target wheel --directory "$place/dist"
"$python" -m venv "$place/venv"
# Of what .venv itself finds by .pth files, such as this repository, nothing is found in this way.
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$("$place/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth"
"$python" -m pip --python "$place/venv/bin/python" install --quiet --no-deps --no-index "$place"/dist/*.whl
tar -xzf "$place"/dist/*.tar.gz -C "$place"
cd "$place"/gankit-*/
"$place/venv/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
