"""Generators: each turns a scene and an instruction into motion (`SceneMotion`), several where it
is stochastic."""
