"""Ages of plans, one by one."""

from dataclasses import replace

import pytest
from flowplan_ros.execution import Code, ExecutionEnded, ExecutionOptions
from flowplan_ros.execution.checks import check_age

OPTIONS = replace(ExecutionOptions(), max_age=30.0)


@pytest.mark.parametrize("age", [-0.9, 0.0, 0.5, 5.0, 29.9])
def test_a_recent_plan_is_executed_also_by_a_clock_that_is_a_little_late(age):
    check_age(100.0, 100.0 + age, OPTIONS)


@pytest.mark.parametrize("age", [-1.1, -1e9, 30.1, 1e9, float("nan")])
def test_an_old_plan_and_one_of_the_future_are_not(age):
    with pytest.raises(ExecutionEnded) as ended:
        check_age(100.0, 100.0 + age, OPTIONS)
    assert ended.value.code is Code.STALE
