"""`flowplan doctor`: the state of an installation, each problem with its remedy."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, resources, util
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from flowplan.cli import console, names

Status = Literal["ok", "absent", "problem"]
_POINTER = 1024
"""Bytes: a file of weights below this is a Git LFS pointer."""
_EXTRAS = {
    "generators": "NeuROK, CHORD and their training",
    "sim": "simulated tasks",
    "wan": "Wan 2.2 as CHORD's video model",
    "gsplat": "Gaussian splatting on a GPU",
}
_SHOWN = frozenset({"numpy", "scipy", "trimesh", "pin", "coal", "toppra", "ompl"})
_INSTALL_GENERATORS = "pip install 'flowplan[generators]'"


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    Attributes:
        status: "ok", "absent" for something optional, or "problem".
        topic: what was looked at.
        found: versions and names.
        remedy: what to do about it, empty if nothing.
    """

    status: Status
    topic: str
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Doctor:
    """Check versions, extras, GPU, ROS 2, weights and robots; each problem with its remedy.

    Exit status 0 if scanning, generating by known laws and planning work.
    """

    json: bool = False
    """Print the findings as JSON."""

    def run(self) -> int:
        findings = list(examine())
        if self.json:
            console.say(json.dumps([asdict(finding) for finding in findings], indent=1))
        else:
            width = max(len(finding.topic) for finding in findings)
            for finding in findings:
                remedy = f"; {finding.remedy}" if finding.remedy else ""
                row = f"{finding.status:<8} {finding.topic:<{width}}  {finding.found}{remedy}"
                console.say(row)
        return 1 if any(finding.status == "problem" for finding in findings) else 0


def examine() -> Iterator[Finding]:
    """Everything that is checked, in the order of the report."""
    yield _python()
    try:
        requirements = _requirements()
    except metadata.PackageNotFoundError:
        remedy = "run pip install -e . in the source folder"
        yield Finding("problem", "flowplan", "importable but not installed", remedy)
    else:
        yield _core(requirements.pop(""))
        for extra, needed in requirements.items():
            if extra in _EXTRAS:
                yield _extra(extra, needed)
    yield _open3d()
    yield _robots()
    yield _weights()
    yield _gpu()
    yield _ros()


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return Finding("ok", "python", version)
    remedy = "make a virtual environment with Python 3.11 or 3.12"
    return Finding("problem", "python", version, remedy)


def _requirements() -> dict[str, list[Requirement]]:
    """Requirements of flowplan on this machine, by extra; "" for those of every install."""
    found: dict[str, list[Requirement]] = {"": []}
    for line in metadata.requires("flowplan") or []:
        requirement = Requirement(line)
        for extra in ("", *(metadata.metadata("flowplan").get_all("Provides-Extra") or [])):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            conditional = requirement.marker is not None and "extra" in str(requirement.marker)
            if applies and conditional == bool(extra) and requirement.name != "flowplan":
                found.setdefault(extra, []).append(requirement)
    return found


def _unmet(requirements: list[Requirement]) -> list[str]:
    """Requirements that are missing, or there in a version that does not fit."""
    unmet = []
    for requirement in requirements:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            unmet.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            unmet.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    return unmet


def _versions(requirements: list[Requirement]) -> str:
    return ", ".join(f"{r.name} {metadata.version(r.name)}" for r in requirements)


def _core(requirements: list[Requirement]) -> Finding:
    version = metadata.version("flowplan")
    unmet = _unmet(requirements)
    if unmet:
        remedy = "pip install --upgrade flowplan, or pip install -e . in its source folder"
        return Finding("problem", "flowplan", f"{version}: {', '.join(unmet)}", remedy)
    shown = [r for r in requirements if r.name in _SHOWN]
    return Finding("ok", "flowplan", f"{version}, {_versions(shown)}")


def _extra(extra: str, requirements: list[Requirement]) -> Finding:
    topic, purpose = f"[{extra}]", _EXTRAS[extra]
    unmet = _unmet(requirements)
    if not unmet:
        return Finding("ok", topic, _versions(requirements))
    found = ", ".join(unmet) if len(unmet) < len(requirements) else "not installed"
    remedy = f"pip install 'flowplan[{extra}]' for {purpose}"
    return Finding("absent", topic, found, remedy)


def _open3d() -> Finding:
    from flowplan.utils.open3d_loader import open3d

    try:
        return Finding("ok", "open3d", f"{open3d().__version__} loads")
    except ImportError as error:
        return Finding("problem", "open3d", console.one_line(str(error)))


def _robots() -> Finding:
    from flowplan.robot import load_robot

    loaded = []
    for name in names.robots():
        try:
            loaded.append(f"{name} ({len(load_robot(name).joint_names)} joints)")
        except (ValueError, OSError, ImportError) as error:
            remedy = "reinstall flowplan"
            return Finding("problem", "robots", f"{name}: {console.one_line(str(error))}", remedy)
    return Finding("ok", "robots", ", ".join(loaded))


def _weights() -> Finding:
    folder = resources.files("generators").joinpath("weights")
    sizes = {
        entry.name.removesuffix(".safetensors"): len(entry.read_bytes())
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".safetensors")
    }
    broken = [name for name, size in sizes.items() if size < _POINTER]
    if broken or not sizes:
        found = f"{', '.join(broken) or 'none'}: a pointer without contents"
        return Finding("problem", "weights", found, "run git lfs pull in the source folder")
    shown = ", ".join(f"{name} ({size / 1e6:.0f} MB)" for name, size in sizes.items())
    return Finding("ok", "weights", shown)


def _gpu() -> Finding:
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return Finding("absent", "gpu", "not used without torch", _INSTALL_GENERATORS)
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    if not driver and sys.platform != "darwin":
        found = f"no NVIDIA driver, torch {version} runs on the CPU"
        return Finding("absent", "gpu", found, "none needed but for Wan 2.2")
    if version.endswith("+cpu"):
        remedy = "install a CUDA build of torch, see https://pytorch.org/get-started"
        return Finding("absent", "gpu", f"torch {version} is built without CUDA", remedy)
    import torch

    if not torch.cuda.is_available():
        remedy = "update the driver, or set --device cpu"
        return Finding("absent", "gpu", f"torch {version} finds no CUDA device", remedy)
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("ok", "gpu", f"{', '.join(devices)}; torch {version}")


def _ros() -> Finding:
    distribution = os.environ.get("ROS_DISTRO", "from wheels")
    if util.find_spec("rclpy") is None:
        remedy = "source a ROS 2 distribution, or run make ros in the source folder"
        return Finding("absent", "ros", "rclpy is not importable", remedy)
    if util.find_spec("flowplan_ros") is None:
        remedy = "build ros_nodes and source its workspace (docs/ros2.md)"
        return Finding("absent", "ros", f"rclpy ({distribution}), without flowplan_ros", remedy)
    return Finding("ok", "ros", f"rclpy ({distribution}), flowplan_ros")
