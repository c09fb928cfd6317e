#!/bin/sh
# The default tests on every supported Python that is installed here, with the newest dependencies, and once ("oldest")
# with the oldest that pyproject.toml allows; each in an environment of its own. Pythons that are not here are skipped.
# Names as arguments choose among them: sh tests/other_pythons.sh oldest 3.13
set -e
cd "$(dirname "$0")/.."
for version in ${*:-oldest 3.11 3.12 3.13 3.14}; do
    python=python$version
    [ "$version" = oldest ] && python=python3.11
    if ! "$python" -c '' 2>/dev/null; then
        echo "$python is not installed: skipped"
        continue
    fi
    home=.venv/python-$version
    "$python" -m venv "$home"
    : >"$home/constraints.txt"
    if [ "$version" = oldest ]; then
        "$python" tests/floors.py >"$home/constraints.txt"
    fi
    "$home/bin/python" -m pip install --quiet --upgrade --upgrade-strategy eager --constraint "$home/constraints.txt" \
        --editable '.[test,offline,docs]'
    echo "$version: $("$python" --version)"
    # Old versions of one package warn of new ones of another.
    "$home/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder $([ "$version" != oldest ] || echo -W default)
done
