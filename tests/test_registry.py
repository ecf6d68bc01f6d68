"""Generators by name: options, instruction and factory come from one light module each."""

import pickle
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from flowplan.laws import Rigid
from generators import registry
from generators.kinematic import KinematicOptions


@pytest.mark.parametrize("name", registry.NAMES)
def test_each_generator_has_options_with_defaults_and_an_instruction(name):
    kind = registry.options_type(name)
    assert is_dataclass(kind)
    kind()
    assert registry.takes(name) == {"chord": "prompt"}.get(name, "action")


def test_a_factory_can_be_pickled_and_carries_its_options():
    factory = pickle.loads(pickle.dumps(registry.factory("kinematic", KinematicOptions(frames=7))))
    assert callable(factory((Rigid("can"),)))
    assert factory.args[1] == KinematicOptions(frames=7)


def test_mistakes_are_named():
    for call in (registry.options_type, registry.takes, registry.factory):
        with pytest.raises(ValueError, match="generator: got 'magic', expected one of"):
            call("magic")
    with pytest.raises(TypeError, match="expected Options of the generator chord, got Kinematic"):
        registry.factory("chord", KinematicOptions())


@pytest.mark.parametrize("name", ["kinematic", "chord"])
def test_options_are_listed_without_heavy_packages(name):
    code = (
        "import sys\n"
        "from generators import registry\n"
        f"registry.options_type({name!r})\n"
        "heavy = {'torch', 'open3d', 'numba', 'transformers'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, f"options of {name} loaded {done.stderr.strip()}"
