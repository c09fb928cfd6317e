"""Published vulnerabilities of the packages that are installed beside gankit, by pip-audit, which asks PyPI.

Ends with 1 where there are some. Packages that could not be looked up are said: pip-audit itself calls them clean.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any


def report(packages: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """Lines on what pip-audit found, from the `dependencies` of its JSON, and whether nothing is vulnerable."""
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    found = [
        f"{package['name']} {package['version']}: {each['id']}, mended in {', '.join(each['fix_versions']) or 'none'}"
        for package in packages
        for each in package.get("vulns", [])
    ]
    lines = [*found, f"published vulnerabilities: {len(found)}, in {len(packages) - len(unknown)} packages"]
    if unknown:
        lines.append(f"not audited, since the index knows nothing of them: {', '.join(unknown)}")
    return lines, not found


def main() -> int:
    home = Path(sys.prefix, "audit")
    python = home / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
        venv.create(home, with_pip=True, clear=True)  # one without pip was cut off
    if subprocess.run([python, "-m", "pip", "install", "--quiet", "pip-audit>=2.7"]).returncode:
        print("not audited: pip-audit cannot be installed")
        return 0
    frozen = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--exclude-editable"], check=True, capture_output=True, text=True
    ).stdout
    with tempfile.TemporaryDirectory() as folder:
        packages, found = Path(folder, "packages.txt"), Path(folder, "found.json")
        packages.write_text("".join(line for line in frozen.splitlines(keepends=True) if "==" in line))
        options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--output", found]
        command = [python, "-m", "pip_audit", "--requirement", packages, *options, *sys.argv[1:]]
        audit = subprocess.run(command, capture_output=True, text=True)
        if not found.exists():
            reason = (audit.stderr.strip() or f"pip-audit ended with {audit.returncode}").splitlines()[-1]
            print(f"not audited: {reason}")
            return 0
        lines, clean = report(json.loads(found.read_text())["dependencies"])
    print("\n".join(lines))
    return not clean


if __name__ == "__main__":
    sys.exit(main())
