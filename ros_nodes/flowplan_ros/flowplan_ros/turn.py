"""Waiting inside a coroutine that rclpy's executor runs: it resumes every unfinished one each time it wakes."""

from __future__ import annotations

from collections.abc import Generator


class turn:
    """`await turn()`: let the executor do something else, and go on when it next wakes."""

    def __await__(self) -> Generator[None, None, None]:
        yield
