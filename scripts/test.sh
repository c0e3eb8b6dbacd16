#!/usr/bin/env bash
# Checks the style, the types and the tests; makes .venv and installs the requirements first where needed.
#
#   bash scripts/test.sh                    everything
#   bash scripts/test.sh tests/injectors    pytest alone, with these arguments (paths from the repository's root)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment requirements-dev.txt
cd "$root"

if [ $# -eq 0 ]; then
    # One process a core (four at most), one thread each: the whole suite on two cores in little more than half the time.
    export OMP_NUM_THREADS=1
    set -- --numprocesses auto --maxprocesses 4
    "$venv/bin/python" -m ruff check .
    "$venv/bin/python" -m ruff format --check .
    PYRIGHT_PYTHON_IGNORE_WARNINGS=1 "$venv/bin/python" -m pyright
fi
exec "$venv/bin/python" -m pytest "$@"
