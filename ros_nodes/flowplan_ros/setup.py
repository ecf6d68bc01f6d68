"""Installs the nodes; flowplan itself, a plain Python library, is installed with pip."""

from setuptools import find_packages, setup

NODES = ("scan_node", "flow_node", "plan_node", "executor_node", "lifecycle_manager")

setup(
    name="flowplan_ros",
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/flowplan_ros"]),
        ("share/flowplan_ros", ["package.xml"]),
    ],
    description="Lifecycle nodes over flowplan: scan, generate flow, plan, execute; and a client.",
    license="Apache-2.0",
    zip_safe=True,
    entry_points={"console_scripts": [f"{name} = flowplan_ros.{name}:main" for name in NODES]},
)
