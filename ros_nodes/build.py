"""Build the ROS packages of this folder with the wheels of the registry, for machines without a ROS
distribution.

On a robot `colcon build` in a workspace does this. Here rclpy, the message packages and the
generators of interfaces are wheels in one virtual environment (`pip install
'flowplan[ros,ros-build]'`), which differs from a distribution in three ways: the wheels' CMake
files name folders of the machine that built them; control_msgs is in no wheel, so that a stand-in
is built (test_interfaces, which colcon ignores by itself); and the built libraries have to be found
at run time, for which build/ros/environment.sh is written:

    python ros_nodes/build.py
    . build/ros/environment.sh

A package is built again when one of its files has changed, all of them when the wheels have.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import xml.etree.ElementTree as ET
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
BUILD = SOURCE.parent / "build" / "ros"
INSTALL = BUILD / "install"
DONE = BUILD / "built.json"
ENVIRONMENT = BUILD / "environment.sh"
PREFIX = Path(sys.prefix)

# Nothing of another ROS set-up may leak in. The last one guards the wheels' re-execution of Python,
# which puts their libraries on LD_LIBRARY_PATH: inherited from another virtual environment it would
# leave that one's libraries there.
FOREIGN = (
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "COLCON_PREFIX_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "ROS_DISTRO",
    "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
)
ENVIRONMENT_TEXT = """\
# Written by ros_nodes/build.py; source it from sh or bash.
unset {foreign}
. '{install}/setup.sh'
export RMW_IMPLEMENTATION=rmw_fastrtps_cpp
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_PYTHON_CHECK_FIELDS=1
"""


def main() -> None:
    begun = time.monotonic()
    check_tools()
    point_to_this_machine()
    wheels, packages = fingerprint_of_wheels(), find_packages()
    now = {name: fingerprint(folder) for name, folder in packages.items()}
    done = json.loads(DONE.read_text()) if DONE.exists() else {}
    if done.get("wheels") != wheels or not done["packages"].keys() <= now.keys():
        shutil.rmtree(BUILD, ignore_errors=True)
        done = {"wheels": wheels, "packages": {}}
    stale = [name for name in now if done["packages"].get(name) != now[name]]
    if stale:
        BUILD.mkdir(parents=True, exist_ok=True)
        # Written before as well, without them: an interrupted build is taken up where it was.
        write_done(wheels, {name: now[name] for name in now if name not in stale})
        build(stale, packages)
        ENVIRONMENT.write_text(ENVIRONMENT_TEXT.format(foreign=" ".join(FOREIGN), install=INSTALL))
        check_imports()
        write_done(wheels, now)
    sys.stdout.write(
        f"ROS: {', '.join(stale) or 'nothing'} built in {time.monotonic() - begun:.0f} s\n"
    )


def write_done(wheels: str, packages: dict[str, str]) -> None:
    """Fingerprints of what lies in the install folder."""
    DONE.write_text(json.dumps({"wheels": wheels, "packages": packages}, indent=1) + "\n")


def check_tools() -> None:
    """Everything the build needs, or one line that says what to install."""
    if not (PREFIX / "share" / "rosidl_cmake").is_dir():
        sys.exit(
            "the ROS wheels are not in this environment: pip install -c constraints.txt -e "
            "'.[ros,ros-build]'"
        )
    for variable, usual in (("CC", ("cc", "gcc", "clang")), ("CXX", ("c++", "g++", "clang++"))):
        asked = os.environ.get(variable, "").split()[:1]
        if not any(map(shutil.which, asked or usual)):
            sys.exit(
                f"no C and C++ compiler ({variable}: {' '.join(asked or usual)}): install the "
                "package build-essential"
            )
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        sys.exit(
            f"no Python.h in {sysconfig.get_path('include')}: install the package python3-dev of "
            "this Python"
        )


def point_to_this_machine() -> None:
    """Replace the folders of the wheels' build machine in their CMake files: Python's headers and
    numpy's."""
    import numpy as np

    theirs = r"/opt/python/cp\d+-cp\d+/"
    numpy_headers = re.compile(theirs + r"lib/python[\d.]+/site-packages/numpy/_core/include")
    python_headers = re.compile(theirs + r"include/python[\d.]+")
    for path in (PREFIX / "share").rglob("*.cmake"):
        text = path.read_text()
        ours = numpy_headers.sub(lambda _: np.get_include(), text)
        ours = python_headers.sub(lambda _: sysconfig.get_path("include"), ours)
        if ours != text:
            path.write_text(ours)


def find_packages() -> dict[str, Path]:
    """Name -> folder of every package of this folder, test_interfaces included."""
    return {
        str(ET.parse(path).findtext("name")): path.parent
        for path in sorted(SOURCE.rglob("package.xml"))
    }


def fingerprint(folder: Path) -> str:
    """Of a package's files: their names and what they say. Caches of tools do not count."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
            total.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def fingerprint_of_wheels() -> str:
    """Of everything outside of the packages that the build depends on."""
    wheels = [
        (d.name, d.version)
        for d in importlib.metadata.distributions()
        if d.name.startswith(("ros-", "colcon-"))
    ]
    seen = [
        sys.version,
        str(PREFIX),
        str(INSTALL),
        sorted(wheels),
        importlib.metadata.version("numpy"),
    ]
    return hashlib.sha256(repr(seen).encode() + Path(__file__).read_bytes()).hexdigest()


def build(names: list[str], packages: dict[str, Path]) -> None:
    """Build and install packages afresh, into one prefix."""
    for name in names:
        # What a deleted or renamed source had left there would go on being found.
        shutil.rmtree(BUILD / "build" / name, ignore_errors=True)
        for pattern in (
            f"lib/{name}",
            f"lib/lib{name}__*",
            f"lib/python*/site-packages/{name}*",
            f"*/{name}",
        ):
            for path in INSTALL.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    argv = [
        str(PREFIX / "bin" / "colcon"),
        "--log-base",
        str(BUILD / "log"),
        "build",
        "--merge-install",
    ]
    argv += ["--build-base", str(BUILD / "build"), "--install-base", str(INSTALL)]
    argv += ["--base-paths", *map(str, packages.values()), "--packages-select", *names]
    # Generated conversions between messages and Python: compiled in a third of the time without
    # optimization.
    argv += [
        "--cmake-args",
        "-GNinja",
        "-DBUILD_TESTING=OFF",
        "-DCMAKE_C_FLAGS=-O0",
        "-DCMAKE_CXX_FLAGS=-O0",
    ]
    # An active environment of somebody else's is where CMake would look for Python.
    foreign = (*FOREIGN, "VIRTUAL_ENV", "CONDA_PREFIX")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    environment |= {
        "PATH": os.pathsep.join([str(PREFIX / "bin"), os.environ["PATH"]]),
        "AMENT_PREFIX_PATH": str(PREFIX),
        "CMAKE_PREFIX_PATH": str(PREFIX),
    }
    log = BUILD / "build.log"
    with log.open("wb") as out:
        status = subprocess.run(
            argv, cwd=BUILD, env=environment, stdout=out, stderr=subprocess.STDOUT
        ).returncode
    if status:
        sys.stderr.write(
            "".join(f"{line}\n" for line in log.read_text(errors="replace").splitlines()[-60:])
        )
        sys.exit(f"the ROS packages {', '.join(names)} do not build: the end of {log} is above")


def check_imports() -> None:
    """rclpy and the interfaces load in the environment that was written, in a shell as a user has
    it."""
    code = (
        "import rclpy, flowplan_msgs.msg, control_msgs.action; "
        "control_msgs.action.FollowJointTrajectory.Goal()"
    )
    script = f". '{ENVIRONMENT}' && exec '{sys.executable}' -c '{code}'"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"ROS was built, but does not load: {done.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()
