"""Hooks of the documentation site: the front page, the examples' page, the reference, and links
that leave docs/.

Pages that exist elsewhere in the repository are not copied by hand: README.md becomes index.md,
examples/README.md becomes examples.md, and each package gets a page whose text mkdocstrings takes
from the docstrings.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/flowplan/flowplan/blob/main/"
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
NAMED = re.compile(r"^```(\w+) ([\w.]+)$", re.MULTILINE)
"""Fences that the tests read by name; the site shows the name as a title."""
COPIED = {"README.md": "index.md", "examples/README.md": "examples.md"}
"""Pages from outside docs/: path in the repository -> path in the site."""
ROOMS = (
    (
        "flowplan",
        ("planner", "report", "scene", "laws", "motion", "trajectory", "rollout", "geometry"),
    ),
    ("flowplan", ("robot", "scan", "grasp", "attachment", "collision", "optimizers", "paths")),
    ("flowplan", ("validation", "io", "viz", "utils")),
    ("generators", ("registry", "kinematic", "neurok", "chord", "common")),
    ("sim_envs", ("task", "world", "arm", "camera", "execute")),
    ("experiments", ("planning", "grasping", "tasks", "neurok", "chord")),
)
"""Packages, each with the rooms that get a page."""


def reference() -> dict[str, str]:
    """Markdown of each page of the reference, by its path in the site."""
    pages = {"reference/flowplan.md": "# flowplan\n\n" + _public_names()}
    for package, rooms in ROOMS:
        for room in rooms:
            name = f"{package}.{room}"
            pages[f"reference/{name}.md"] = _page(name)
    return pages


def _page(name: str) -> str:
    """A package's docstring, then each of its modules; or a module by itself."""
    path = ROOT / name.replace(".", "/")
    if not path.is_dir():
        return f"::: {name}\n"
    parts = [f"::: {name}\n    options:\n      members: false\n"]
    for file in sorted(path.rglob("*.py")):
        inner = file.relative_to(ROOT).with_suffix("").parts
        if inner[-1] == "__init__" and len(inner) == name.count(".") + 2:
            continue
        module = ".".join(inner[:-1] if inner[-1] == "__init__" else inner)
        members = "\n      members: false" if inner[-1] == "__init__" else ""
        parts.append(f"::: {module}\n    options:\n      heading_level: 2{members}\n")
    return "\n".join(parts)


def _public_names() -> str:
    """The names that `import flowplan` offers, each with the page that documents it."""
    import flowplan

    rows = ["`import flowplan` offers these names; each is imported on first access.", ""]
    rows += ["| name | documented in |", "|---|---|"]
    for name, module in sorted(flowplan._MODULES.items()):
        page = ".".join(module.split(".")[:2])
        rows.append(f"| `flowplan.{name}` | [{module}]({page}.md) |")
    return "\n".join(rows) + "\n"


def on_config(config: Any) -> Any:
    """List the reference's pages in the navigation."""
    titles = sorted(reference())
    entries = [{posixpath.basename(page).removesuffix(".md"): page} for page in titles]
    for section in config["nav"]:
        if "Reference" in section:
            section["Reference"] = entries
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that do not lie in docs/."""
    for source, page in COPIED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for page, content in reference().items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links at pages of the site, or at the repository for files outside of it."""
    where = page.file.src_uri
    source = next((s for s, p in COPIED.items() if p == where), posixpath.join("docs", where))
    if where.startswith("reference/"):
        return markdown

    def rewrite(match: re.Match[str]) -> str:
        before, target, section, after = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        inside = COPIED.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if inside is not None and files.get_file_from_path(inside):
            target = posixpath.relpath(inside, posixpath.dirname(where) or ".")
        elif (ROOT / path).exists():
            target = REPOSITORY + path
        return f"{before}{target}{section or ''}{after}"

    markdown = NAMED.sub(
        lambda m: f"```{m[1]}" if m[2] == "slow" else f'```{m[1]} title="{m[2]}"', markdown
    )
    return LINK.sub(rewrite, markdown)
