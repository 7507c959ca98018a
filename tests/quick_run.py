"""A program in place of `isl-emu run SCENARIO --out FOLDER`: it makes a folder like that of a run, at once.

It holds on while a file is there.
"""

import json
import os
import sys
import time
from pathlib import Path

HOLD, BEGUN, FAIL = (
    "QUICK_RUNS_HOLD",
    "QUICK_RUNS_BEGUN",
    "QUICK_RUNS_FAIL",
)  # variables: two files, and a name's beginning


def main(scenario: Path, folder: Path) -> None:
    with Path(os.environ[BEGUN]).open("a") as begun:
        begun.write(f"{os.getpid()} {folder}\n")
    while Path(os.environ[HOLD]).exists():
        time.sleep(0.05)
    if scenario.parent.name.startswith(os.environ.get(FAIL, "none")):
        sys.exit("it is not to be")
    text = scenario.read_text()
    (folder / "files" / "gs").mkdir(parents=True)
    (folder / "files" / "gs" / "link").symlink_to("/etc/passwd")
    (folder / "scenario.toml").write_text(text)
    (folder / "serving.json").write_text(json.dumps({"characters": len(text)}))
    (folder / "fidelity.json").write_text(json.dumps({"verdict": "valid", "clock": "exact", "reasons": []}))
    (folder / "provenance.json").write_text(json.dumps({"execution": {"ended_ns": 10, "error": None}}))
    print("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[3]))
