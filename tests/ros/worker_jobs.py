"""What the worker's tests have it do; a module of its own, because its process imports it."""

import os
import time

import numpy as np


def nothing():
    pass


def unwilling():
    raise ValueError("robot: no such thing")


def dying():
    os._exit(3)


def add(a, b):
    return a + b


def pid():
    return os.getpid()


def solve(seconds, progress=lambda fraction, word: None):
    """Keep numpy busy, in one matrix after the other that Python cannot interrupt."""
    begun = time.monotonic()
    matrix = np.random.default_rng(0).random((400, 400))
    while (spent := time.monotonic() - begun) < seconds:
        progress(spent / seconds, "solving")
        np.linalg.svd(matrix)
    return "solved"


def mistake():
    raise ValueError("field: expected another")


def defect():
    raise KeyError("gone")


def unpicklable():
    return lambda: None


def crash():
    os._exit(7)
