"""A server that speaks S3, in this process and on the loopback alone: moto's, empty, for as long as a block lasts.

Google's client speaks the same XML to its storage, so gs:// may be led here, too; what is Google's own (tokens, errors)
is not tried.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stores.remote import RemotePath, as_path

SECRET = "never-in-a-message"


@contextmanager
def s3_bucket() -> Iterator[RemotePath]:
    """The URL of an empty bucket, and the environment that leads to it; skips where moto or obstore are absent."""
    pytest.importorskip("obstore", reason="needs obstore: pip install 'vl[remote]'")
    server_module = pytest.importorskip("moto.server", reason="needs moto's S3 server: pip install 'vl[test]'")
    boto3 = pytest.importorskip("boto3", reason="needs boto3, which comes with moto")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request, else
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "some-id")
            patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
            patch.setenv("AWS_REGION", "us-east-1")
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            patch.setenv("GOOGLE_BASE_URL", endpoint)
            scope = f"Credential={SECRET}/20200101/us-east-1/s3/aws4_request"  # which moto looks for in every header
            patch.setenv("GOOGLE_BEARER_TOKEN", scope)
            client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
            client.create_bucket(Bucket="features")
            client.close()
            bucket = as_path("s3://features")
            assert isinstance(bucket, RemotePath), bucket
            yield bucket
    finally:
        server.stop()
