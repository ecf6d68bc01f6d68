"""Damaged files given to a reader in a process of its own, with little memory and little time.

    python tests/fuzz/attack.py READER[,READER...] COUNT SEED

It prints a JSON object for each reader: files read, refused, faults, the longest time and the most memory. A
fault is an exception other than an error in one line that names the file, a file opened outside of
the folder, or more time than allowed.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from readers import TARGETS, Target

MEMORY = 2**30
"""Bytes beyond those of the process before the attack."""
SECONDS = 10
"""Longest time of one file."""
_PROGRAM = tuple(
    str(Path(p).resolve()) for p in (sys.prefix, sys.base_prefix, "/usr", "/proc", "/sys", "/dev")
)


class TooLongError(BaseException):
    """A file took more than the time allowed."""


def attack(name: str, count: int, seed: int) -> dict[str, Any]:
    """Read `count` damaged files; the faults and the costs."""
    target = TARGETS[name]()
    rng = np.random.default_rng([seed, *name.encode()])
    with tempfile.TemporaryDirectory() as folder:
        return _attack(target, Path(folder).resolve() / "inside", count, rng)


def _attack(target: Target, folder: Path, count: int, rng: np.random.Generator) -> dict[str, Any]:
    (folder.parent / "outside.txt").write_text("not to be read")
    first = next(iter(target.files))
    for name, data in target.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    target.read(folder / first)  # the whole file is read, and modules are imported
    _limit_memory()
    opened: list[str] = []
    watching = [False]
    sys.addaudithook(lambda event, args: watching[0] and _note(event, args, folder, opened))
    signal.signal(signal.SIGALRM, _too_long)
    result: dict[str, Any] = {"n": count, "read": 0, "refused": 0, "faults": [], "slowest": 0.0}
    for _ in range(count):
        data = target.damage(target.files[first], rng)
        (folder / first).write_bytes(data)
        opened.clear()
        start = time.monotonic()
        signal.alarm(SECONDS)
        watching[0] = True
        fault = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                target.read(folder / first)
            result["read"] += 1
        except (ValueError, OSError) as error:
            result["refused"] += 1
            text = str(error)
            if "\n" in text or (Path(first).name not in text and str(folder) not in text):
                fault = f"{type(error).__name__}: {text}"
        except BaseException as error:
            fault = f"{type(error).__name__}: {error}"
        finally:
            watching[0] = False
            signal.alarm(0)
        result["slowest"] = max(result["slowest"], time.monotonic() - start)
        if opened:
            fault = f"opened {opened[0]}"
        if fault:
            _keep(fault, data, first, result)
    result["peak_mb"] = _peak_megabytes()
    shutil.rmtree(folder)
    return result


def _peak_megabytes() -> float:
    """Largest memory of this process; the resource module would count the one that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _limit_memory() -> None:
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return  # set by an earlier reader
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _note(event: str, args: Any, folder: Path, opened: list[str]) -> None:
    if event == "open" and isinstance(args[0], str):
        path = os.path.abspath(args[0])
        if not f"{path}/".startswith(tuple(f"{p}/" for p in (folder, *_PROGRAM))):
            opened.append(path)


def _too_long(*_: Any) -> None:
    raise TooLongError(f"more than {SECONDS} s")


def _keep(fault: str, data: bytes, first: str, result: dict[str, Any]) -> None:
    """A fault, and the file of the first few of them."""
    if len(result["faults"]) < 20:
        kept = Path(tempfile.gettempdir()) / f"fault-{abs(hash(data)):x}-{Path(first).name}"
        kept.write_bytes(data)
        result["faults"].append(f"{fault[:300]} ({kept})")
    else:
        result["more"] = result.get("more", 0) + 1


if __name__ == "__main__":
    for reader in sys.argv[1].split(","):
        found = attack(reader, int(sys.argv[2]), int(sys.argv[3]))
        sys.stdout.write(json.dumps({"reader": reader, **found}) + "\n")
        sys.stdout.flush()
