"""The documentation does what it says: its Python runs, its commands run, its links lead somewhere.

Of one file, in order and in one temporary folder: ```python blocks run in one namespace, a
```json NAME or ```toml NAME block becomes the file NAME, and the `flowplan` lines of ```sh and
```console blocks go to the command line. Commands that take minutes, that wait for somebody to
look, or that need a robot (by name, or in blocks called "slow") are not run, but their options have
to be known, as of command lines in the text; Python in blocks called "slow" runs with the slow
tests. `make` runs this test and is left out.
"""

import contextlib
import re
import shlex
from pathlib import Path

import pytest

from flowplan.cli import dispatch, parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "docs" / "results" / "README.md"
CARDS = sorted((ROOT / "generators" / "weights").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CURRENT = [page for page in PAGES if page.name != "renames.md"]  # which lists old commands too
NOT_RUN = {"run", "eval", "bench", "train", "view", "ros"}
COMMANDS = dispatch.commands()
BLOCK = re.compile(r"^```(\w+)[ ]?([\w.]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MACHINE_PATH = re.compile(r"/(work|tmp|home|root)/")


def blocks(page):
    """(language, name, text, line) of every fenced block."""
    text = page.read_text()
    return [(*m.groups(), text.count("\n", 0, m.start()) + 2) for m in BLOCK.finditer(text)]


def commands(text):
    """The flowplan commands of a shell block, as argument lists."""
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in text.splitlines()]
    return [w[1:] for w in words if w[:1] == ["flowplan"]]


def anchor(heading):
    """What a heading is called in a link."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def follow(page, folder, monkeypatch, *, slow=False):
    """Do what a page says, in a folder."""
    monkeypatch.chdir(folder)
    namespace = {"__name__": "__main__"}
    for language, name, text, line in blocks(page):
        if language == "python":
            # Blank lines in front give the error the page's own line number.
            code = compile("\n" * (line - 1) + text, str(page), "exec")
            if slow or name != "slow":
                exec(code, namespace)
        elif language in ("json", "toml"):
            (folder / name).write_text(text)
        elif language in ("sh", "console"):
            for arguments in commands(text):
                if arguments[0] in NOT_RUN or name == "slow":
                    understand(arguments)
                else:
                    status = dispatch.call(arguments)
                    assert status == 0, f"flowplan {shlex.join(arguments)} ended with {status}"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_what_a_page_says_runs(page, tmp_path, monkeypatch):
    follow(page, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if "```python slow" in p.read_text()], ids=lambda p: p.name
)
def test_what_a_page_says_runs_to_the_end(page, tmp_path, monkeypatch):
    follow(page, tmp_path, monkeypatch, slow=True)


class Incomplete(ValueError):
    """A command line without all that the command needs."""


def understand(arguments):
    """A command line without doing anything: its options are known, and of the right kind."""
    words = next(words for words in COMMANDS if tuple(arguments[: len(words)]) == words)
    prog = " ".join(("flowplan", *words))
    try:
        parser.parse(COMMANDS[words].record(), prog, arguments[len(words) :])
    except ValueError as error:
        raise (Incomplete(str(error)) if "must be given" in str(error) else error) from None


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, section = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), f"{page.name}: {link} leads out of the project"
        assert target.exists(), f"{page.name}: {link} leads nowhere"
        if section:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert section in [anchor(h) for h in headings], f"{page.name}: {link} names no heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_and_modules_that_are_named_exist(page):
    text = page.read_text()
    assert not MACHINE_PATH.search(text), f"{page.name}: names a path of some machine"
    folders = "|".join(("flowplan", "generators", "robot_configs", "sim_envs", "tests", "docs"))
    for path in re.findall(rf"`((?:{folders})/[\w./]+)`", text):
        assert (ROOT / path).exists(), f"{page.name}: {path} does not exist"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_readme_names_every_command(words):
    command = " ".join(("flowplan", *words))
    rows = [row for row in README.splitlines() if re.match(rf"\| `{command}[` ]", row)]
    assert len(rows) == 1, f"README.md: expected one row for `{command}`, got {len(rows)}"
    known = set(parser.option_names(COMMANDS[words].record(), command))
    named = set(re.findall(r"`(--[a-z][\w.-]*)`", rows[0]))
    assert named <= known, f"README.md: `{command}` has no {named - known}"


@pytest.mark.parametrize(
    "path", [ROOT / "Makefile", *CARDS, *CURRENT, RESULTS], ids=lambda p: p.name
)
def test_command_lines_in_the_text_are_understood(path):
    for command in command_lines(path.read_text()):
        # Running text may leave out what a command is given.
        with contextlib.suppress(Incomplete):
            understand(command)


def command_lines(text):
    """Command lines with options in a Makefile, or in running text between backquotes."""
    text = text.replace("\\\n", " ")
    quoted = re.findall(r"`(?:[^`]*-m )?flowplan(?:\.cli)? ([^`]+)`", text)
    run = re.findall(r"^\t.*\$\(BIN\)/flowplan (.+)$", text, re.MULTILINE)
    lines = [line.split("--help")[0] for line in quoted + run if "--" in line and "..." not in line]
    return [shlex.split(line) for line in lines]
