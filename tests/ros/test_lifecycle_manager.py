"""lifecycle_manager: up in order, up again after a crash, down in reverse."""

from flowplan_ros.server import LATCHED
from lifecycle_msgs.msg import State, TransitionEvent
from lifecycle_msgs.srv import GetState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

NODES = ["first", "second"]


def parameters(**more):
    return {"nodes": NODES, "period": 0.05, "retry": 0.2, **more}


def two_servers(ros):
    """That are quick to warm up."""
    return [
        ros.start("flow_node", {"generator": "kinematic"}, name=name, remap={"generate_flow": name})
        for name in NODES
    ]


def state(ros, node):
    return ros.call(GetState, f"{node}/get_state").current_state.id


def trigger(ros, name):
    return ros.call(Trigger, f"lifecycle_manager/{name}", timeout=120)


def test_nodes_are_brought_up_in_order_and_down_in_reverse_and_up_after_a_crash(ros):
    nodes = two_servers(ros)
    events = []
    for name in NODES:
        ros.node.create_subscription(
            TransitionEvent,
            f"{name}/transition_event",
            lambda event, name=name: events.append((name, event.goal_state.label)),
            50,
        )
    ros.wait_for(
        lambda: all(ros.node.count_publishers(f"{name}/transition_event") for name in NODES)
    )
    active = ros.subscribe(Bool, "lifecycle_manager/active", LATCHED)
    manager = ros.start("lifecycle_manager", parameters())
    ros.wait_for(lambda: active and active[-1].data, 120, "all active")
    assert [node for node, label in events if label == "active"] == NODES
    assert trigger(ros, "is_active").message == "all active"

    nodes[0].kill()
    ros.wait_for(lambda: not active[-1].data, 60, "the loss being noticed")
    assert trigger(ros, "is_active").message == "not active: first"
    assert state(ros, "second") == State.PRIMARY_STATE_ACTIVE
    ros.start("flow_node", name="first", remap={"generate_flow": "first"})
    ros.wait_for(lambda: active[-1].data, 120, "all active again")
    assert state(ros, "first") == State.PRIMARY_STATE_ACTIVE

    events.clear()
    assert trigger(ros, "shutdown").message == "all unconfigured"
    ros.wait_for(lambda: len([label for _, label in events if label == "unconfigured"]) == 2)
    ends = [(node, label) for node, label in events if label in ("inactive", "unconfigured")]
    assert ends == [
        (node, label) for label in ("inactive", "unconfigured") for node in reversed(NODES)
    ]
    assert trigger(ros, "startup").message == "all active"
    assert manager.stop() == 0


def test_a_node_that_refuses_is_asked_again_and_named(ros):
    ros.start("flow_node", name="first")
    ros.start("scan_node", {"pose_source": "tf"}, name="second")  # there is no tf2 here
    manager = ros.start("lifecycle_manager", parameters(autostart=False))
    assert trigger(ros, "is_active").message == "not active: first, second"
    startup = ros.service(Trigger, "lifecycle_manager/startup").call_async(Trigger.Request())
    refused = "second: did not configure; its log says why; again in 0.2 s"
    ros.wait_for(lambda: manager.output().count(refused) > 1, 120, "two refusals")
    ros.wait_for(lambda: trigger(ros, "is_active").message == "not active: second", 120)
    assert not trigger(ros, "is_active").success
    assert not startup.done()  # it waits on
