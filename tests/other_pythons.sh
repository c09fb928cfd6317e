#!/bin/sh
# The default tests on every supported Python that is installed here, each in an environment of its own; others are skipped.
# Names of versions as arguments choose among them: sh tests/other_pythons.sh 3.13
set -e
cd "$(dirname "$0")/.."
for version in ${*:-3.11 3.12 3.13 3.14}; do
    if ! "python$version" -c '' 2>/dev/null; then
        echo "python$version is not installed: skipped"
        continue
    fi
    home=.venv/python$version
    "python$version" -m venv "$home"
    "$home/bin/python" -m pip install --quiet --editable '.[test,offline,docs]'
    echo "python$version"
    "$home/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder
done
