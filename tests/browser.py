"""Headless Chromium for tests that look at a page."""

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from PIL import Image
from websockets.sync.client import connect

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


class Tab:
    """A page in headless Chromium, driven through its debugging protocol."""

    def __init__(self, address):
        self.requests = []
        self._socket = connect(address, max_size=None)
        self._count = 0

    def call(self, method, **parameters):
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=180))
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._count:
                return answer.get("result", {})

    def picture(self):
        shot = {}
        wait_for(
            lambda: shot.update(self.call("Page.captureScreenshot", format="png")) or shot
        )  # none while it loads
        return np.asarray(
            Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB"), float
        )


@contextmanager
def chromium():
    options = "--headless=new --no-sandbox --disable-gpu --use-gl=angle --use-angle=swiftshader"
    options += " --enable-unsafe-swiftshader --disable-background-networking --no-first-run"
    options += " --remote-debugging-port=0"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [
            CHROMIUM,
            *options.split(),
            "--window-size=720,600",
            f"--user-data-dir={folder}",
            "about:blank",
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            port_file = Path(folder) / "DevToolsActivePort"
            wait_for(lambda: port_file.exists() and port_file.read_text().count("\n"))
            tabs = json.load(urlopen(f"http://127.0.0.1:{port_file.read_text().split()[0]}/json"))
            yield Tab(next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page"))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(condition, seconds=180.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)
