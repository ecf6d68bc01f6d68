"""Reads the subset of ROS 2's XML launch files that this project uses, and refuses everything else.

ROS's own `launch` cannot be installed without a distribution. What it would start is worked out
here, by its rules: arguments in the order in which they are declared, `$(var NAME)` and
`$(find-pkg-share PACKAGE)`, includes that see only the arguments that they are given, values typed
as YAML. Parameters of one node: later ones win.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ATTRIBUTES = {
    "launch": (set(), set()),
    "arg": ({"name"}, {"default", "description", "value"}),
    "include": ({"file"}, set()),
    "node": (
        {"pkg", "exec"},
        {"name", "namespace", "output", "respawn", "respawn_delay", "args", "if", "unless"},
    ),
    "param": (set(), {"from", "name", "value"}),
    "remap": ({"from", "to"}, set()),
}
"""What an element must have, and what it may have."""
CHILDREN = {"launch": {"arg", "include", "node"}, "include": {"arg"}, "node": {"param", "remap"}}
SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
SOURCES = Path(__file__).parents[2] / "ros_nodes"


@dataclass(frozen=True)
class LaunchNode:
    """One process that a launch file starts.

    Attributes:
        package, executable, name, namespace: what, and under which name; empty where the file does
            not say.
        arguments: further words of its command line.
        parameters: files, and dictionaries of single values, in order.
        remaps: from, to.
        respawn: started again when it ends.
    """

    package: str
    executable: str
    name: str
    namespace: str
    arguments: tuple[str, ...] = ()
    parameters: tuple[Path | dict[str, Any], ...] = ()
    remaps: tuple[tuple[str, str], ...] = ()
    respawn: bool = False

    def ros_arguments(self, folder: Path) -> list[str]:
        """Its command line after the executable; single values go into files in `folder`."""
        words = ["-r", f"__node:={self.name}"] if self.name else []
        words += ["-r", f"__ns:={self.namespace}"] if self.namespace else []
        words += [word for remap in self.remaps for word in ("-r", ":=".join(remap))]
        for i, parameters in enumerate(self.parameters):
            path = parameters
            if isinstance(parameters, dict):
                path = folder / f"launch-{self.name or self.executable}-{i}.yaml"
                path.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
            words += ["--params-file", str(path)]
        return [*self.arguments, "--ros-args", *words]

    def values(self) -> dict[str, Any]:
        """The parameters that the files and values set for this node, flat; later ones win."""
        out: dict[str, Any] = {}
        for parameters in self.parameters:
            out |= (
                parameters
                if isinstance(parameters, dict)
                else parameters_for(parameters, self.name)
            )
        return out


@dataclass
class Declared:
    """The arguments of one file, as far as it has been read."""

    given: dict[str, str]
    values: dict[str, str] = field(default_factory=dict)


def share(package: str) -> Path:
    """The installed share folder of a package, else its source."""
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        if (folder := Path(prefix, "share", package)).is_dir():
            return folder
    if (SOURCES / package).is_dir():
        return SOURCES / package
    raise ValueError(f"$(find-pkg-share {package}): no such package")


def read_launch(
    path: Path, arguments: Mapping[str, str] | None = None, find: Callable[[str], Path] = share
) -> list[LaunchNode]:
    """The processes that a launch file starts with these arguments.

    Raises:
        ValueError: for anything outside of the subset, with file and element.
    """
    root = ET.parse(path).getroot()
    if root.tag != "launch":
        raise ValueError(f"{path.name}: expected <launch>, got <{root.tag}>")
    arguments = dict(arguments or {})
    declared = Declared(arguments)
    nodes: list[LaunchNode] = []
    _check(root, path)
    for element in root:
        _check(element, path)
        if element.tag == "arg":
            _declare(element, declared, path, find)
        elif element.tag == "include":
            given = {
                a.get("name"): _text(a.get("value"), declared, path, find)
                for a in element
                if _check(a, path)
            }
            nodes += read_launch(
                Path(_text(element.get("file"), declared, path, find)), given, find
            )
        elif _enabled(element, declared, path, find):
            nodes.append(_node(element, declared, path, find))
    if unknown := set(arguments) - set(declared.values):
        raise ValueError(
            f"{path.name}: no argument {sorted(unknown)[0]!r}; it has {', '.join(declared.values)}"
        )
    return nodes


def parameters_for(path: Path, node: str) -> dict[str, Any]:
    """The parameters that a file sets for a node in the root namespace, flat, dots between the
    parts of a name.

    Raises:
        ValueError: for a file that is not `NODE: ros__parameters: ...`, NODE being `/**`,
            `/**/NAME` or `/NAME`.
    """
    out: dict[str, Any] = {}
    for name, section in yaml.safe_load(path.read_text()).items():
        if not re.fullmatch(r"/\*\*|(/\*\*)?/\w+", name) or set(section) != {"ros__parameters"}:
            raise ValueError(
                f"{path.name}: {name}: expected /**, /**/NAME or /NAME, and ros__parameters in it"
            )
        if name == "/**" or name.rsplit("/", 1)[1] == node:
            out |= _flat(section["ros__parameters"])
    return out


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in tree.items():
        out |= (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return out


def _check(element: ET.Element, path: Path) -> bool:
    """Insist that an element is in the subset."""
    where = f"{path.name}: <{element.tag}>"
    if element.tag not in ATTRIBUTES:
        raise ValueError(f"{where}: not in the subset")
    must, may = ATTRIBUTES[element.tag]
    if unknown := set(element.attrib) - must - may:
        raise ValueError(f"{where}: attribute {sorted(unknown)[0]!r} is not in the subset")
    if lacking := must - set(element.attrib):
        raise ValueError(f"{where}: lacks attribute {sorted(lacking)[0]!r}")
    if (element.text or "").strip() or (element.tail or "").strip():
        raise ValueError(f"{where}: text is not in the subset")
    for child in element:
        if child.tag not in CHILDREN.get(element.tag, set()):
            raise ValueError(f"{where}: <{child.tag}> does not belong there")
    return True


def _declare(
    element: ET.Element, declared: Declared, path: Path, find: Callable[[str], Path]
) -> None:
    name = element.get("name", "")
    if "value" in element.attrib:
        raise ValueError(f"{path.name}: <arg name={name!r}>: value belongs into an include")
    if "description" not in element.attrib:
        raise ValueError(f"{path.name}: <arg name={name!r}>: lacks a description")
    if name not in declared.given and "default" not in element.attrib:
        raise ValueError(f"{path.name}: argument {name!r} has no default and was not given")
    default = element.get("default")
    declared.values[name] = (
        declared.given[name] if name in declared.given else _text(default, declared, path, find)
    )


def _node(
    element: ET.Element, declared: Declared, path: Path, find: Callable[[str], Path]
) -> LaunchNode:
    def text(name: str) -> str:
        return _text(element.get(name, ""), declared, path, find)

    parameters: list[Path | dict[str, Any]] = []
    remaps: list[tuple[str, str]] = []
    for child in element:
        _check(child, path)
        values = {key: _text(value, declared, path, find) for key, value in child.items()}
        if child.tag == "remap":
            remaps.append((values["from"], values["to"]))
        elif set(values) == {"from"}:
            if not (file := Path(values["from"])).is_file():
                raise ValueError(f"{path.name}: <param from={values['from']!r}>: no such file")
            parameters.append(file)
        elif set(values) == {"name", "value"}:
            parameters.append({values["name"]: yaml.safe_load(values["value"])})
        else:
            raise ValueError(
                f"{path.name}: <param>: expected from, or name and value, got {sorted(values)}"
            )
    return LaunchNode(
        text("pkg"),
        text("exec"),
        text("name"),
        text("namespace"),
        tuple(text("args").split()),
        tuple(parameters),
        tuple(remaps),
        _boolean(text("respawn") or "false", path),
    )


def _enabled(
    element: ET.Element, declared: Declared, path: Path, find: Callable[[str], Path]
) -> bool:
    wanted = _boolean(_text(element.get("if", "true"), declared, path, find), path)
    return wanted and not _boolean(
        _text(element.get("unless", "false"), declared, path, find), path
    )


def _boolean(text: str, path: Path) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f"{path.name}: expected true or false, got {text!r}")
    return text.lower() in ("true", "1")


def _text(text: str | None, declared: Declared, path: Path, find: Callable[[str], Path]) -> str:
    """An attribute with its substitutions made."""

    def substitute(match: re.Match[str]) -> str:
        kind, _, name = match[1].partition(" ")
        if kind == "var" and name in declared.values:
            return declared.values[name]
        if kind == "find-pkg-share":
            return str(find(name))
        raise ValueError(f"{path.name}: {match[0]}: unknown")

    if text is None:
        raise ValueError(f"{path.name}: lacks an attribute")
    out = SUBSTITUTION.sub(substitute, text)
    if "$(" in out:
        raise ValueError(f"{path.name}: {text!r}: not in the subset")
    return out
