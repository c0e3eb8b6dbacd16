#!/usr/bin/env bash
# Known weaknesses of the packages in requirements.lock, by pip-audit in an environment of its own.
#
#   bash scripts/audit.sh [--ignore-vuln ID ...]
#
# Exit status 1 where there are some, 2 for an unknown option. Where pip-audit or its data cannot be had (no network), it says so and passes.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/environment.sh"
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

skip() {
    echo "not audited: $1"
    exit 0
}

"$(find_python)" -m venv "$place/venv" && "$place/venv/bin/python" -m pip install --quiet pip-audit==2.10.1 ||
    skip "pip-audit cannot be installed"
"$place/venv/bin/pip-audit" --requirement "$root/requirements.lock" --require-hashes --disable-pip \
    --progress-spinner off --format json --output "$place/found.json" "$@" 2>"$place/said"
status=$?
[ "$status" -ne 2 ] || { cat "$place/said" >&2; exit 2; }  # an option that it does not know
[ -s "$place/found.json" ] || skip "$(tail -n 1 "$place/said")"
"$place/venv/bin/python" - "$place/found.json" <<'PYTHON'
import json, sys
packages = json.load(open(sys.argv[1], encoding="utf-8"))["dependencies"]
known = [package for package in packages if "vulns" in package]
weak = [package for package in known if package["vulns"]]
for package in weak:
    for found in package["vulns"]:
        fixed = ", ".join(found["fix_versions"]) or "none yet"
        print(f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}")
print(f"{len(known)} of {len(packages)} packages audited, {len(weak)} with known weaknesses")
sys.exit(bool(weak))
PYTHON
