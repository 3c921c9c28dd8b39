"""Stores that fsspec knows, by URL: how they are opened, how a file is brought there whole, and what they fail with."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from astrape.errors import AstrapeError, PlaceError
from astrape.wording import lacking, one_line

__all__ = [
    "CACHE",
    "OUTGOING",
    "Where",
    "is_remote",
    "lacks_bucket",
    "objects_below",
    "opened",
    "plain",
    "put",
    "read_cache",
    "same_objects",
    "told",
]

Where = str | os.PathLike[str]
"""A path, or a URL that fsspec knows."""

CACHE = "ASTRAPE_READ_CACHE"
"""Environment: the folder that holds what was read from stores."""

OUTGOING = "outgoing"
"""Folder in there for what is being written to a store."""

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)

OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "memory"})
"""Stores whose objects appear with the end of their upload. Elsewhere a temporary is renamed."""

BUCKETS = frozenset({"s3", "s3a"})
"""Stores that can be asked whether there is a bucket."""

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}

NO_BUCKET = "there is no such bucket: hint: make it first"

PAGE = 1000
"""Names that are asked for at a time."""

UNREACHABLE = ("EndpointConnection", "ConnectTimeout", "ReadTimeout", "ClientConnector", "Disconnected", "gaierror")
"""Parts of the names of errors that HTTP clients raise where no server answers."""

DENIED = ("AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403")


def plain(where: Where) -> str:
    """A path or a URL as text, without a slash at its end; ``file://`` becomes the path that it names."""
    text = os.fspath(where)
    if text.lower().startswith("file://"):
        text = unquote(urlsplit(text).path)
    return text if text in ("", "/") else text.rstrip("/")


def is_remote(where: str) -> bool:
    """Whether text of :func:`plain` names something in a store."""
    return URL.match(where) is not None


def read_cache() -> Path:
    """The folder that holds what was read from stores."""
    given = os.environ.get(CACHE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astrape" / "read"


def opened(where: str) -> tuple[Any, str]:
    """The store of a URL, and the path in it.

    Raises:
        PlaceError: for a protocol that is unknown, or whose package is missing.
    """
    protocol = _protocol(where)
    try:
        import fsspec
    except ImportError as error:
        raise PlaceError(lacking(f"{where}:", "fsspec", "remote")) from error
    try:
        # Lists of names are not kept: of a million objects they would grow without end.
        store, at = fsspec.core.url_to_fs(where, use_listings_cache=False)
    except ImportError as error:
        package = PACKAGES.get(protocol, protocol)
        hint = 'pip install "astrape[remote]"' if package == "s3fs" else f"pip install {package}"
        raise PlaceError(f"{where}: takes the package {package}; hint: {hint}") from error
    except ValueError as error:
        raise PlaceError(
            f"{where}: fsspec knows no '{protocol}://'; hint: s3://, gs://, file:// or a plain path"
        ) from error
    return store, str(at)


def put(where: str, file: Path) -> None:
    """Bring a file of this machine to a store, whole or not at all.

    Raises:
        PlaceError: for a store that does not take it.
    """
    with told(where, "cannot be written"):
        store, at = opened(where)
        protocol = _protocol(where)
        if protocol == "memory":
            # A copy into memory would be seen while it grows.
            store.pipe_file(at, file.read_bytes())
            return
        if protocol in OBJECTS:
            store.put_file(os.fspath(file), at)
            return
        store.makedirs(at.rpartition("/")[0], exist_ok=True)
        temporary = f"{at}.{os.getpid()}.writing"
        store.put_file(os.fspath(file), temporary)
        store.mv(temporary, at)


@contextmanager
def told(where: str, what: str) -> Iterator[None]:
    """Whatever a store fails with, as an error of one line with a hint; stores raise what their own libraries do."""
    try:
        yield
    except AstrapeError:
        raise
    except FileNotFoundError as error:
        if "bucket" in one_line(error).lower() or lacks_bucket(where):
            raise PlaceError(f"{where}: {NO_BUCKET}") from error
        raise PlaceError(f"{where}: there is no such file", missing=True) from error
    except Exception as error:
        kind, said = type(error).__name__, one_line(error)
        names = " ".join([kind, *(type(one).__name__ for one in _causes(error))])
        if "credentials" in f"{kind} {said}".lower():
            hint = (
                "no credentials; hint: those of the store's own tools are taken, such as AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            )
        elif isinstance(error, (ConnectionError, TimeoutError)) or any(one in names for one in UNREACHABLE):
            hint = f"no server answers ({said}); hint: look at the network and the endpoint, such as AWS_ENDPOINT_URL"
        elif isinstance(error, PermissionError) or any(one in said for one in DENIED):
            hint = f"access is denied ({said}); hint: look at the credentials, and at what they may do there"
        else:
            hint = f"{kind}: {said}"
        raise PlaceError(f"{where}: {what}: {hint}") from error


def objects_below(where: str) -> Iterator[str]:
    """Every object below a URL, by its path from there; as many names are held as the store gives at a time.

    Stores of S3, Google and Azure give a thousand. Of others, the names of one folder are held.

    Raises:
        PlaceError: for a store that cannot be listed.
    """
    with told(where, "cannot be listed"):
        store, at = opened(where)
        if _protocol(where) in PAGED:
            bucket, _, inside = at.partition("/")
            prefix = f"{inside}/" if inside else ""
            # Other tools mark a folder by an object whose name ends with a slash.
            names = (name for name in PAGED[_protocol(where)](store, bucket, prefix) if not name.endswith("/"))
            try:
                yield from (name.removeprefix(prefix) for name in names)
            except FileNotFoundError as error:
                # At worst an existing bucket has nothing below a prefix.
                raise PlaceError(f"{where}: {NO_BUCKET}") from error
            return
        try:
            for folder, _, objects in store.walk(at, on_error="raise"):
                below = folder.removeprefix(at).strip("/")
                yield from (f"{below}/{name}".lstrip("/") for name in objects)
        except FileNotFoundError:
            # There is nothing below it.
            return


def _of_s3(store: Any, bucket: str, prefix: str) -> Iterator[str]:
    """The names of objects, page by page: what s3fs lists, it lists whole."""
    more: dict[str, str] = {}
    while True:
        page = store.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        yield from (one["Key"] for one in page.get("Contents", ()))
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _of_google(store: Any, bucket: str, prefix: str) -> Iterator[str]:
    """Names of the objects in a Google Cloud Storage bucket, page by page, from its JSON interface."""
    more: dict[str, str] = {}
    while True:
        page = store.call("GET", "b/{}/o", bucket, prefix=prefix, maxResults=PAGE, json_out=True, **more)
        yield from (one["name"] for one in page.get("items", ()))
        if not page.get("nextPageToken"):
            return
        more = {"pageToken": page["nextPageToken"]}


def _of_azure(store: Any, container: str, prefix: str) -> Iterator[str]:
    """Names of the blobs in an Azure container, page by page, from Azure's own client."""
    from fsspec.asyn import sync

    async def page(more: str | None) -> tuple[list[str], str | None]:
        async with store.service_client.get_container_client(container) as client:
            pages = client.list_blobs(name_starts_with=prefix, results_per_page=PAGE).by_page(continuation_token=more)
            async for names in pages:
                return [one.name async for one in names], pages.continuation_token
        return [], None

    more: str | None = None
    while True:
        try:
            names, more = sync(store.loop, page, more)
        except Exception as error:
            # Its own kinds of errors come with its package.
            if "ContainerNotFound" in str(error):
                raise FileNotFoundError(container) from error
            raise
        yield from names
        if not more:
            return


PAGED: dict[str, Callable[[Any, str, str], Iterator[str]]] = {
    **dict.fromkeys(("s3", "s3a"), _of_s3),
    **dict.fromkeys(("gs", "gcs"), _of_google),
    **dict.fromkeys(("az", "abfs", "abfss"), _of_azure),
}
"""Stores that are listed page by page, and how."""


def same_objects(one: str, other: str) -> bool:
    """Whether two URLs are of one store of objects, which copies them whole itself."""
    return is_remote(one) and _protocol(one) == _protocol(other) and _protocol(one) in OBJECTS


def lacks_bucket(where: str) -> bool:
    """Whether there is no such bucket, as far as that can be asked."""
    if _protocol(where) not in BUCKETS:
        return False
    store, at = opened(where)
    try:
        store.call_s3("head_bucket", Bucket=at.partition("/")[0])
    except FileNotFoundError:
        return True
    except Exception:  # no leave to ask, for instance: who is asking has an error of its own to tell
        return False
    return False


def _protocol(where: str) -> str:
    return where.partition("://")[0].lower()


def _causes(error: BaseException) -> Iterator[BaseException]:
    while (error := error.__cause__ or error.__context__) is not None:  # type: ignore[assignment]
        yield error
