"""Strict reading of URDF elements: every fault is one line that names the file and the element.

Document types and entities are refused: they can make a parser read other files, or expand a short
file without end.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from flowplan.geometry import matrix_from_rpy, pose
from flowplan.utils.checks import FloatArray
from flowplan.utils.files import read_bytes

LARGEST_URDF = 20_000_000
"""Bytes of a URDF."""


class _DoctypeError(Exception):
    pass


class _NoDoctype(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _DoctypeError


def read_xml(path: Path) -> ET.Element:
    """The <robot> element of a URDF.

    Raises:
        ValueError: one line, if the file cannot be read, is no XML, or holds another element.
    """
    data = read_bytes(path, largest=LARGEST_URDF)
    try:
        root = ET.fromstring(data, ET.XMLParser(target=_NoDoctype()))
    except _DoctypeError:
        raise ValueError(
            f"{path}: document types and entities are not read; remove the <!DOCTYPE ...> part"
        ) from None
    except (ET.ParseError, ValueError, LookupError) as error:  # also of unknown encodings
        if "unbound prefix" in str(error) and b"xacro:" in data:
            raise ValueError(
                f"{path}: holds xacro elements; run xacro and give its output"
            ) from None
        raise ValueError(
            f"{path}: not well-formed XML, got a syntax error ({error}); repair the URDF"
        ) from None
    if root.tag != "robot":
        raise ValueError(
            f"{path}: expected a <robot> element, got <{root.tag}>; give a URDF (run xacro first)"
        )
    _refuse_xacro(path, root)
    return root


def _refuse_xacro(path: Path, root: ET.Element) -> None:
    """Refuse elements and expressions that xacro should have replaced: they stand for links."""
    for element in root.iter():
        namespace, _, name = str(element.tag).rpartition("}")
        if "xacro" in namespace.lower() or name.startswith("xacro:"):
            name = name.removeprefix("xacro:")
            raise ValueError(
                f"{path}: holds the xacro element <xacro:{name}>; run xacro and give its output"
            )
        for key, value in element.items():
            if "${" in value or "$(" in value:
                raise ValueError(
                    f"{path}: <{name}> {key}={value!r} is a xacro expression; "
                    "run xacro and give its output"
                )


def attribute(where: str, element: ET.Element, key: str) -> str:
    """A non-empty attribute of an element; `where` names the file and the element."""
    value = element.get(key)
    if not value:
        raise ValueError(f"{where}: attribute {key!r} is missing; repair the URDF")
    return value


def numbers(
    where: str,
    element: ET.Element | None,
    key: str,
    count: int,
    default: tuple[float, ...] | None = None,
) -> FloatArray:
    """The `count` finite numbers of an attribute.

    Args:
        where: names the file and the element, for errors.
        element: None stands for an absent element.
        key: name of the attribute.
        count: how many numbers it must hold.
        default: their values if the attribute is absent; it is required without them.
    """
    # An absent attribute takes its default.
    text = None if element is None else element.get(key)
    plural = "" if count == 1 else "s"
    if text is None:
        if default is None:
            tag = "" if element is None else f" of <{element.tag}>"
            raise ValueError(
                f"{where}: attribute {key!r} is missing, expected {count} number{plural}{tag}"
            )
        return np.array(default)
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        values = np.array([np.nan])
    # Unreadable words became NaN, so one check finds them all.
    if len(values) != count or not np.isfinite(values).all():
        tag = "" if element is None else f"{element.tag} "
        raise ValueError(
            f"{where}: {tag}{key}={text!r}, expected {count} finite number{plural}; repair the URDF"
        )
    return values


def positive_numbers(where: str, element: ET.Element, key: str, count: int) -> FloatArray:
    """The `count` positive numbers of a required attribute, such as a shape's size."""
    values = numbers(where, element, key, count)
    if values.min() <= 0:
        raise ValueError(
            f"{where}: {element.tag} {key}={element.get(key)!r}, expected positive numbers; "
            "repair the URDF"
        )
    return values


def origin(where: str, element: ET.Element) -> FloatArray:
    """The pose (4, 4) in the <origin> of an element; the identity if there is none."""
    child = element.find("origin")
    rpy = numbers(where, child, "rpy", 3, default=(0.0, 0.0, 0.0))
    xyz = numbers(where, child, "xyz", 3, default=(0.0, 0.0, 0.0))
    return pose(matrix_from_rpy(rpy), xyz)
