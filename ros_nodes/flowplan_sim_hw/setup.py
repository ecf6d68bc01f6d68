"""Installs the simulated robot; flowplan and its simulator (`flowplan[sim]`), plain Python, are
installed with pip."""

from setuptools import setup

setup(
    name="flowplan_sim_hw",
    version="0.1.0",
    packages=["flowplan_sim_hw"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/flowplan_sim_hw"]),
        ("share/flowplan_sim_hw", ["package.xml"]),
    ],
    description="A simulated robot that speaks ROS 2 as the real one does.",
    license="Apache-2.0",
    zip_safe=True,
    entry_points={"console_scripts": ["sim_node = flowplan_sim_hw.sim_node:main"]},
)
