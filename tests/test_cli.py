"""The command line: each command's own options, quick help, errors and progress in a line each."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from flowplan.cli import console, dispatch, parser
from flowplan.geometry import pose
from flowplan.io import npz
from flowplan.motion import SceneMotion
from flowplan.scene import Scene, SceneObject

ROOT = Path(__file__).parents[1]
COMMANDS = dispatch.commands()
HEAVY = ("torch", "pybullet", "open3d", "transformers", "rclpy", "trimesh", "scipy")


def flowplan(*words, **given):
    """A command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "flowplan.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=300,
        **given,
    )


@pytest.fixture(scope="module")
def helps():
    """Help of every command and group, and the heavy packages that it imported."""
    groups = [
        (name,) for name, entry in dispatch.COMMANDS.items() if isinstance(entry, dispatch.Group)
    ]
    code = (
        "import sys\n"
        "from flowplan.cli import dispatch\n"
        "try: dispatch.call(sys.argv[1:] + ['--help'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    found = {}
    for words in [(), *groups, *COMMANDS]:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr
        found[words] = done.stdout, ast.literal_eval(done.stderr.splitlines()[-1])
    return found


def test_every_help_says_how_to_call_it_and_what_it_does(helps):
    for words, (text, _) in helps.items():
        assert text.startswith(f"usage: {' '.join(('flowplan', *words))}")
        assert len(text.splitlines()) >= 5


def test_help_imports_nothing_heavy(helps):
    heavy = {" ".join(words): imported for words, (_, imported) in helps.items() if imported}
    assert not heavy


def test_the_list_of_commands_names_them_all(helps):
    for words in COMMANDS:
        assert re.search(rf"^  {words[0]} ", helps[()][0], re.MULTILINE)
        if len(words) > 1:
            assert re.search(rf"^  {words[1]} ", helps[words[:1]][0], re.MULTILINE)


def test_no_command_shows_an_option_of_another(helps):
    options = {
        words: set(re.findall(r"--[a-z][\w.-]*", text)) for words, (text, _) in helps.items()
    }
    assert "--prior" in options["generate", "chord"]
    assert not options["generate", "kinematic"] & {"--prior", "--weights", "--samples", "--device"}
    assert not options["generate", "neurok"] & {"--prior", "--prompt", "--iterations"}
    assert options["bench", "ros"] == {"--help", "--runs", "--seed", "--json"}
    assert options["bench", "wan"] == {"--help", "--json"}
    assert not options["eval", "chord"] & {"--tasks", "--robots", "--methods", "--instances"}
    assert not options["eval", "tasks"] & {"--instruction", "--weights", "--kinds", "--ablations"}
    assert "--kinds" not in options["train", "neurok"]
    assert not options["train", "choreographer"] & {"--instances", "--families"}
    for words in COMMANDS:
        shown = options[words]
        assert not {o for o in shown if o.startswith("--options")}, words


def test_every_option_is_explained():
    for words, command in COMMANDS.items():
        text = parser.help_text(command.record(), "flowplan")
        rows = re.findall(r"^│ (--\S+.*?)│$(?=\n(?:│ (?:--)|╰))", text, re.MULTILINE)
        bare = [row.strip() for row in rows if len(re.split(r"\s{2,}", row.strip())) < 2]
        assert not bare, f"{' '.join(words)}: {bare} have no explanation"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "flowplan: expected a command, one of scan, generate, "),
        ("plna", "flowplan: unknown command 'plna'; did you mean plan?"),
        ("bench speed", "flowplan bench: unknown command 'speed'; expected one of plan, grasp"),
        ("plan", "flowplan plan: SCENE and MOTION must be given; see flowplan plan --help"),
        ("plan a b --robt ur5e", "flowplan plan: unknown option --robt; did you mean --robot?"),
        ("plan --robt=ur5e", "flowplan plan: unknown option --robt; did you mean --robot?"),
        ("plan a b c", "flowplan plan: unexpected argument 'c'; see flowplan plan --help"),
        ("plan a b --seed", "flowplan plan: --seed: expected INT, got nothing"),
        ("plan a b --seed x", "flowplan plan: --seed: expected a whole number, got 'x'"),
        ("plan a b --seed -1", "flowplan plan: --seed: expected at least 0, got -1"),
        ("bench grasp --seed -1", "flowplan bench grasp: --seed: expected at least 0, got -1"),
        ("plan a b --out no/p.npz", "flowplan: no/p.npz: its folder does not exist; create it"),
        (
            "plan a b --release later",
            "flowplan plan: --release: expected one of auto, always, never, got 'later'",
        ),
        (
            "run pick_place --release later",
            "flowplan run: --release: expected one of task, auto, always, never, got 'later'",
        ),
        (
            "plan a b --timing slow",
            "flowplan plan: --timing: expected one of flow, fast, got 'slow'",
        ),
        ("plan a b --track.iterations 0", "flowplan plan: --track.iterations: expected "),
        ("view runs --port 0", "flowplan view: --port: expected 1 to 65535, got 0"),
        ("scan a --position 1", "flowplan scan: --position: expected {FLOAT FLOAT}, got '1'"),
        ("scan missing.ply", "flowplan: "),
        ("generate konematic a b", "flowplan generate: unknown command 'konematic'; did you mean"),
        ("ros send", "flowplan ros send: expected one of TEXT, --document and --task"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_status_2(line, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["flowplan", *line.split()])
    with pytest.raises(SystemExit) as end:
        dispatch.main()
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert not out
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_a_mistake_is_not_wrapped_in_a_pipe(tmp_path):
    name = "x" * 200
    done = flowplan("scan", f"{name}.ply", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert name in done.stderr


def test_names_of_registries_are_listed_in_errors_of_unknown_ones(tmp_path):
    done = flowplan("eval", "tasks", "--tasks", "juggle", cwd=tmp_path)
    assert done.returncode == 2
    assert "'juggle', expected one of pick_place, close_laptop" in done.stderr
    assert done.stderr.count("\n") == 1  # PyBullet says nothing of itself


def test_warnings_and_logs_are_one_line_without_a_path(capsys):
    import logging
    import warnings

    with console.prepared():
        warnings.warn("the mesh\nis doubtful", stacklevel=1)
        logging.getLogger("somewhere").warning("not\nso good")
    assert capsys.readouterr() == (
        "",
        "flowplan: warning: the mesh is doubtful\nflowplan: warning: not so good\n",
    )


def test_progress_in_a_pipe_is_lines_on_stderr(capsys):
    with console.progress("planning") as tell:
        for step in range(101):
            tell(step / 100, f"step {step}")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "planning: 0 % step 0\nplanning: 100 % step 100\n"


def test_what_a_library_prints_leaves_stdout_to_the_result():
    code = (
        "import os\n"
        "from flowplan.cli import console\n"
        "with console.prepared():\n"
        "    os.write(1, b'noise')\n"
        "    console.say('result')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("result\n", "noise")


def test_a_reader_that_leaves_ends_the_command_quietly():
    command = f"{sys.executable} -m flowplan.cli plan --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("usage: flowplan plan")
    assert done.stderr == ""


def test_help_has_no_color_if_asked_for_none(monkeypatch, capsys):
    monkeypatch.setattr("tyro._fmtlib._FORCE_ANSI", True)
    for color in (True, False):
        if not color:
            monkeypatch.setenv("NO_COLOR", "1")
        with pytest.raises(SystemExit):
            dispatch.call(["plan", "--help"])
        assert ("\x1b[" in capsys.readouterr().out) == color


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    """Files of a box and of its motion: up by 8 cm."""
    folder = tmp_path_factory.mktemp("lifted")
    box = SceneObject(
        "box", trimesh.creation.box((0.04, 0.04, 0.1)), pose(translation=[0.45, 0.1, 0.05])
    )
    scene = Scene((box,))
    up = np.linspace(0, 0.08, 21)[:, None, None] * [0.0, 0.0, 1.0]
    npz.save(folder / "scene.npz", scene)
    motion = SceneMotion(np.linspace(0, 2, 21), (box.vertices_world + up,))
    npz.save(folder / "motion.npz", motion)
    return folder


def test_a_plan_as_json(lifted):
    done = flowplan("plan", "scene.npz", "motion.npz", "--json", cwd=lifted)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["planned"]
    assert data["file"] == "plan.npz"
    assert (lifted / "plan.npz").exists()
    plan = data["plan"]
    assert plan["contact"]["kind"] in ("grasp", "push")
    assert np.shape(plan["contact"]["X_world_tool"]) == (4, 4)
    assert sum(plan["phase_durations_s"].values()) == pytest.approx(plan["duration_s"], abs=0.2)
    assert 0 < plan["max_position_error_m"] < 0.015
    assert plan["clearance_m"] >= 0
    assert data["attempts"][-1]["stage"] == "planned"
    assert data["attempts"][-1]["time_s"] is None
    assert done.stderr.startswith("planning: ")


def test_no_plan_as_json(lifted):
    options = ("--validation.margin", 0.2, "--candidates", 1, "--out", "none.npz")
    done = flowplan("plan", "scene.npz", "motion.npz", "--json", *options, cwd=lifted)
    assert done.returncode == 1, done.stderr
    data = json.loads(done.stdout)
    assert not data["planned"]
    assert data["reason"]
    assert data["plan"] is None
    assert data["file"] is None
    assert not (lifted / "none.npz").exists()
    assert {"stage", "reason", "remedy", "clearance_m"} <= set(data["attempts"][0])


def test_a_generator_that_has_no_device_refuses_a_gpu(tmp_path):
    done = flowplan("run", "close_laptop", "--device", "cuda", cwd=tmp_path)
    assert done.returncode == 2
    assert "expected auto or cpu for the generator kinematic, got 'cuda'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_doctor_finds_what_is_there_and_says_what_to_do():
    done = flowplan("doctor", "--json")
    assert done.returncode == 0, done.stdout
    findings = {finding["topic"]: finding for finding in json.loads(done.stdout)}
    assert findings["python"]["status"] == "ok"
    assert findings["flowplan"]["status"] == "ok"
    assert "numpy" in findings["flowplan"]["found"]
    assert "panda (7 joints), ur5e (6 joints)" in findings["robots"]["found"]
    assert "neurok-small" in findings["weights"]["found"]
    assert {"gpu", "ros", "open3d", "[generators]", "[sim]"} <= set(findings)
    for finding in findings.values():
        assert (finding["status"] == "ok") or finding["remedy"], finding
        assert "\n" not in finding["found"] + finding["remedy"]


def test_doctor_names_a_missing_extra_and_a_missing_requirement(monkeypatch):
    from importlib import metadata

    from flowplan.cli.commands import doctor

    version = metadata.version

    def missing(name):
        if name in ("pybullet", "toppra"):
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", missing)
    findings = {finding.topic: finding for finding in doctor.examine()}
    assert findings["[sim]"].status == "absent"
    assert findings["[sim]"].remedy.startswith("pip install 'flowplan[sim]'")
    assert findings["flowplan"].status == "problem"
    assert "toppra is missing" in findings["flowplan"].found


def test_options_of_the_command_line_reach_the_records():
    kind = COMMANDS["plan",].record()
    words = [
        "a",
        "b",
        "--no-rank",
        "--track.margin",
        "0.03",
        "--attachment.screw-fit.iterations",
        "7",
    ]
    options = parser.parse(kind, "flowplan plan", words).options
    assert not options.rank
    assert options.track.margin == 0.03
    assert options.attachment.screw_fit.iterations == 7
    words = ["--tasks", "close_laptop", "pick_place", "--seeds", "3"]
    options = parser.parse(COMMANDS["eval", "tasks"].record(), "flowplan eval tasks", words).options
    assert options.tasks == ("close_laptop", "pick_place")
    assert options.seeds == 3
