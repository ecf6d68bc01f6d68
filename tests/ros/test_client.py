"""The client library and `flowplan ros send`, against servers that answer at once or go wrong."""

import json
import signal
import sys
from pathlib import Path

import pytest
from flowplan_msgs.msg import ErrorCode, Instruction
from flowplan_ros.client import STAGES, Client, ClientOptions, StageFailed, code_name, objects_of
from flowplan_ros.conversions import document_to_msg, instruction_to_msg
from flowplan_ros.server import LATCHED

from flowplan.scene import Prompt

QUICK = ClientOptions(task_timeout=10.0)
CLOSE = instruction_to_msg(Prompt("close the  LAPTOP"))


def serve(ros, fault=""):
    script = str(Path(__file__).with_name("fake_servers.py"))
    server = ros.spawn(
        [sys.executable, script, "--ros-args", "-p", f"fault:={fault or 'none'}"], "fake_servers"
    )
    ros.wait_for(lambda: "ready" in server.output(), 60, "the servers")
    return server


def cli(ros, *words):
    process = ros.spawn([sys.executable, "-m", "flowplan.cli", "ros", "send", *words], "cli")
    process.ended_by_test = True
    return process


def end_of(ros, process):
    ros.wait_for(lambda: not process.alive, 60, "the end of the command")
    return process.popen.returncode, " ".join(process.output().split())


def test_a_sentence_goes_all_the_way(ros):
    serve(ros)
    heard = []
    with Client(options=QUICK) as client:
        done = client.send(CLOSE, dry_run=True, on_progress=lambda *words: heard.append(words))
        assert tuple(done.seconds) == STAGES
        assert done.execution.error_msg == "dry run"
        assert [stage for stage, fraction, _ in heard if fraction == 1.0] == list(STAGES)
        for stage in STAGES[1:]:
            assert (stage, 0.5, f"{stage} half done") in heard
        assert objects_of(client.task()) == ("laptop",)
        # A second one over the same connections; a document in place of the sentence.
        assert client.send(client.task()).execution.error_msg == "done"


def test_a_sentence_that_no_task_answers_stays_a_sentence(ros):
    serve(ros)
    with Client(options=QUICK) as client:
        client.scan(["laptop"])  # servers are there
        other = instruction_to_msg(Prompt("open the laptop"))
        assert client.resolve(other) is other
        assert client.resolve(CLOSE).kind == Instruction.DOCUMENT
        broken = document_to_msg("{")
        assert client.resolve(broken) is broken
        assert objects_of(broken) == ()


def test_a_sentence_means_what_the_task_says_now(ros):
    """Nobody spins the client between two calls: what it has heard before may be of a task that is
    over."""
    tasks = ros.node.create_publisher(Instruction, "task/instruction", LATCHED)
    with Client(options=QUICK) as client:
        for x in range(3):
            document = document_to_msg(
                json.dumps({"prompt": "close the laptop", "handles": [[x, 0, 0]]})
            )
            tasks.publish(document)
            assert client.resolve(CLOSE) == document
            assert client.task() == document


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_fails_says_which_and_why(ros, stage):
    serve(ros, f"{stage} fails")
    with Client(options=QUICK) as client, pytest.raises(StageFailed) as failed:
        client.send(CLOSE)
    assert failed.value.stage == stage
    code = ErrorCode.NOTHING_SEEN if stage == "scan" else ErrorCode.INTERNAL
    assert failed.value.code == code
    assert code_name(code) in str(failed.value)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_stop_cancels_the_stage_that_runs(ros, stage):
    server = serve(ros, f"{stage} waits")
    heard = []
    with Client(options=QUICK) as client, pytest.raises(StageFailed) as failed:
        client.send(
            CLOSE,
            on_progress=lambda *words: heard.append(words),
            stop=lambda: (stage, 0.5) in [h[:2] for h in heard],
        )
    assert (failed.value.stage, failed.value.code) == (stage, ErrorCode.CANCELED)
    ros.wait_for(lambda: f"{stage} canceled" in server.output(), what="the server's word")


def test_servers_that_are_not_there_die_or_are_started_again(ros):
    with Client(options=ClientOptions(server_timeout=0.5, task_timeout=0.2)) as client:
        with pytest.raises(StageFailed, match="nobody serves scan"):
            client.send(CLOSE)
        with pytest.raises(ValueError, match="nobody publishes a task"):
            client.task()
    first = serve(ros, "plan waits")

    def replace_server(stage, fraction, status):
        if stage == "plan" and fraction == 0.5:
            first.kill()
            serve(ros)

    with Client(options=QUICK) as client:
        with pytest.raises(StageFailed, match="started anew|is gone"):
            client.send(CLOSE, on_progress=replace_server)
        assert client.send(CLOSE).execution.error_msg == "done"


@pytest.mark.parametrize("says", [True, False])
def test_a_person_is_asked_once(ros, says):
    serve(ros, "asks")
    asked = []
    with Client(options=QUICK) as client:
        if says:
            assert (
                client.send(CLOSE, on_confirm=lambda: asked.append(1) or True).execution.error_msg
                == "done"
            )
        else:
            with pytest.raises(StageFailed, match="NOT_CONFIRMED"):
                client.send(CLOSE, on_confirm=lambda: asked.append(1))
    assert asked == [1]


def test_the_command(ros):
    serve(ros)
    records = ros.folder / "times.json"
    status, text = end_of(ros, cli(ros, "close the laptop", "--json", str(records)))
    assert status == 0, text
    assert "done" in text
    assert all(stage in text for stage in STAGES)
    assert {r["key"] for r in json.loads(records.read_text())} == {
        f"ros/{stage}" for stage in STAGES
    }
    assert end_of(ros, cli(ros, "--task", "--dry-run"))[0] == 0
    status, text = end_of(ros, cli(ros))
    assert status == 2
    assert "expected one of TEXT, --document and --task" in text


def test_the_command_when_a_stage_fails(ros):
    serve(ros, "plan fails")
    status, text = end_of(ros, cli(ros, "close the laptop"))
    assert status == 1
    assert "plan: INTERNAL: plan went wrong" in text


@pytest.mark.parametrize(
    ("fault", "when"), [("execute waits", "begun"), ("execute hesitates", "asked")]
)
def test_an_interrupted_command_cancels_its_goal_answered_or_not(ros, fault, when):
    server = serve(ros, fault)
    process = cli(ros, "close the laptop")
    ros.wait_for(lambda: f"execute {when}" in server.output(), 60, "execution")
    process.signal(signal.SIGINT)
    assert end_of(ros, process)[0] == 130
    assert "execute canceled" in server.output()
