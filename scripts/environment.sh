# The project's own Python environment. Sourced by train.sh and test.sh; it is not a command.
#
#   prepare_environment requirements.txt
#
# makes $root/.venv where there is none and installs the requirements where they have changed. A stamp inside .venv,
# written only after pip has succeeded, holds a hash of the requirement files and the Python version.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"

fail() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

can_make_venv() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

# Prints a Python that can make the environment: $PYTHON if it is set, else the first of the usual names.
find_python() {
    local candidate without_venv=""
    for candidate in ${PYTHON:+"$PYTHON"} ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        is_new_enough "$candidate" || continue
        if can_make_venv "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
        without_venv=${without_venv:-$candidate}
    done
    if [ -n "$without_venv" ]; then
        fail "$without_venv has no venv module; install it (Debian and Ubuntu: apt install python3-venv)" \
            "or name another Python 3.11 or newer: PYTHON=/path/to/python3 bash $0"
    fi
    if [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON is not a Python 3.11 or newer"
    fi
    fail "no Python 3.11 or newer found (tried python3, python3.14, python3.13, python3.12, python3.11)" \
        "install one from https://www.python.org/downloads/ or name one: PYTHON=/path/to/python3 bash $0"
}

# pip writes a package's RECORD last. A package without one was cut off while it was unpacked, yet pip would take it
# for installed: forget it, so that pip unpacks it again.
forget_half_installed_packages() {
    local info
    for info in "$venv"/lib/python3*/site-packages/*.dist-info; do
        if [ -d "$info" ] && [ ! -e "$info/RECORD" ]; then
            rm -rf "$info"
        fi
    done
}

make_venv() {
    local python
    if ! is_new_enough "$venv/bin/python"; then
        python=$(find_python)
        echo "Making .venv with $("$python" --version)"
        "$python" -I -m venv --clear --without-pip "$venv"
    fi
    forget_half_installed_packages
    if ! "$venv/bin/python" -I -m pip --version >/dev/null 2>&1; then
        "$venv/bin/python" -I -m ensurepip --upgrade >/dev/null
    fi
}

# Prints what a complete installation of these requirement files is known by.
fingerprint() {
    "$venv/bin/python" -I - "$@" <<'PYTHON'
import hashlib, pathlib, sys
content = b"".join(pathlib.Path(path).read_bytes() for path in sys.argv[1:])
print(sys.version.split()[0], hashlib.sha256(content).hexdigest())
PYTHON
}

# Requirements the named file holds: itself and, for requirements-dev.txt, those of the project.
prepare_environment() {
    local base="$root/requirements.txt" wanted="$root/$1" stamp="$venv/complete-$1"
    if is_new_enough "$venv/bin/python" && [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint "$base" "$wanted")" ]; then
        return
    fi
    make_venv
    rm -f "$venv"/complete-*
    echo "Installing $1 into .venv"
    "$venv/bin/python" -I -m pip install --disable-pip-version-check --no-input -r "$wanted" ||
        fail "the installation did not finish; run the same command again to continue it"
    fingerprint "$base" "$base" >"$venv/complete-requirements.txt"
    fingerprint "$base" "$wanted" >"$stamp"
}
