#!/usr/bin/env bash
# Trains; makes .venv and installs the requirements first where needed. Needs Python 3.11 or newer, nothing else.
#
#   bash scripts/train.sh                                        experiments/stereo_lm.yml on the demo corpus
#   bash scripts/train.sh datasets.train.path=DIR                the same on your own folder
#   bash scripts/train.sh -opt experiments/tiny_cpu.yml --check  arguments go on to train.py
#
# PYTHON=/path/to/python3 chooses the Python that .venv is made with.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment requirements.txt

for argument in "$@"; do
    case "$argument" in
        -opt | --opt | -opt=* | --opt=*) exec "$venv/bin/python" "$root/train.py" "$@" ;;
    esac
done
exec "$venv/bin/python" "$root/train.py" -opt "$root/experiments/stereo_lm.yml" "$@"
