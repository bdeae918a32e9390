"""`make lint` asks for known vulnerabilities where it can, and is no failure where it cannot."""

import pathlib
import subprocess

import pytest

AUDIT = pathlib.Path(__file__).parents[2] / ".ci" / "audit"


def audited(folder, packages: str, report: str, status: int) -> subprocess.CompletedProcess[str]:
    """Run the script on an environment whose Python says what is to be found.

    Args:
      packages: whether pip-audit is `installed`, in the `index`, or in `neither`.
    """
    known = {"installed": "exit 0", "index": f"test -e {folder}/there", "neither": "exit 1"}
    lines = [
        "#!/bin/sh",
        'case "$*" in',
        f"*--version) {known[packages]};;",
        f"*install*) test {packages} = index && touch {folder}/there;;",
        f"*pip_audit*) echo '{report}'; exit {status};;",
        "esac",
    ]
    # The environment that is audited, and the tool's own.
    for python in (folder / "bin" / "python", folder / "audit" / "bin" / "python"):
        python.parent.mkdir(parents=True)
        python.write_text("\n".join(lines) + "\n")
        python.chmod(0o755)
    command = ["sh", str(AUDIT), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("packages", "report", "status", "expected"),
    [
        ("installed", "No known vulnerabilities found", 0, (0, "No known vulnerabilities found")),
        ("index", "No known vulnerabilities found", 0, (0, "No known vulnerabilities found")),
        ("installed", "Found 2 known vulnerabilities in 1 package", 1, (1, "Found 2 known")),
        ("installed", "ConnectionError", 1, (0, "skipped, as no index of vulnerabilities")),
        ("neither", "", 0, (0, "skipped, as it is neither installed nor in the package index")),
    ],
)
def test_audit(tmp_path, packages, report, status, expected):
    done = audited(tmp_path, packages, report, status)
    assert done.returncode == expected[0]
    assert expected[1] in done.stdout
