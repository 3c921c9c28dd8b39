"""A server of S3 for tests."""

from __future__ import annotations

import atexit
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from uuid import uuid4

import pytest

# The system gives the port, and the server says which: a port that is looked for first may be another's by then. It
# ends with its standard input, so with the tests, however they end.
SERVER = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@cache
def _port() -> int:
    """Port of the one server for all tests of a process: starting it takes three seconds of CPU."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    atexit.register(process.communicate)
    atexit.register(process.kill)
    assert process.stdout is not None
    return int(process.stdout.readline())


@contextmanager
def s3_bucket() -> Iterator[str]:
    """The URL of an empty bucket, of a name of its own; the environment leads to it meanwhile, that of workers too."""
    for module in ("moto", "flask", "s3fs", "boto3"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install 'moto[server]' s3fs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{_port()}")
        patch.setenv("AWS_ACCESS_KEY_ID", "tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import boto3
        import s3fs

        # A connection to somewhere else is none to this one.
        s3fs.S3FileSystem.clear_instance_cache()
        name = f"speech-{uuid4().hex}"
        boto3.client("s3").create_bucket(Bucket=name)
        yield f"s3://{name}"
