"""An object store on this machine: moto's server of S3, for tests that read and write `s3://` URLs."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from distributed.slurm import free_ports

BUCKET = "logs"


@dataclass(frozen=True, slots=True)
class Store:
    """A server that runs. log: what it prints, a line a request."""

    process: subprocess.Popen[bytes]
    log: Path

    def put(self, folder: Path, name: str) -> Any:
        """A copy of a local folder, by its URL."""
        from coldrank.data.location import location

        to: Any = location(f"s3://{BUCKET}/{name}")
        for path in (p for p in folder.rglob("*") if p.is_file()):
            (to / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())
        return to

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Everybody is a stranger to the store within `with`."""
        from coldrank.data.location import location

        try:
            self._known_from(0)
            yield
        finally:
            self._known_from(float("inf"))
        assert location(f"s3://{BUCKET}").is_dir()

    def _known_from(self, requests: float) -> None:
        """After how many requests the store asks who it is."""
        url = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
        text = {"Content-Type": "text/plain"}
        urlopen(Request(url, data=str(requests).encode(), method="POST", headers=text)).close()

    def reads(self, name: str) -> int:
        """How often the content of an object has been asked for."""
        return self.log.read_text().count(f"GET /{BUCKET}/{name} ")


@contextmanager
def stored(folder: Path) -> Iterator[Store]:
    """A store with a bucket, and the environment that leads there. Skips where packages are missing."""
    for name in ("s3fs", "upath", "moto", "flask", "flask_cors"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (coldrank[s3], and of the development tools moto)")
    import s3fs

    (port,) = free_ports(1)
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "name",
        "AWS_SECRET_ACCESS_KEY": "word",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    log = folder / "server.log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with pytest.MonkeyPatch.context() as patch, log.open("wb") as said:
        for name, value in settings.items():
            patch.setenv(name, value)
        process = subprocess.Popen(command, stdout=said, stderr=said, env=os.environ)
        try:
            s3fs.S3FileSystem.clear_instance_cache()
            until = time.monotonic() + 120
            while "Running on" not in log.read_text():
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            s3fs.S3FileSystem().mkdir(BUCKET)
            yield Store(process, log)
        finally:
            process.kill()
            process.wait()
            s3fs.S3FileSystem.clear_instance_cache()
