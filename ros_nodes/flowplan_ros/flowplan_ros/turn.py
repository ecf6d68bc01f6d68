"""Waiting inside a coroutine of rclpy's executor, which resumes every unfinished one each time it
wakes."""

from __future__ import annotations

from collections.abc import Generator


class yield_to_executor:
    """Yield to the executor until it next wakes: `await yield_to_executor()`."""

    def __await__(self) -> Generator[None, None, None]:
        yield
