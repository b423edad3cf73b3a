"""One registry over HTTP: manifests and blobs, with permission, retries and resumed downloads.

https://github.com/opencontainers/distribution-spec (pull), and Docker's registry API, which it was made from.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass

import certifi
import httpx
import trio

from runtime import image_model
from runtime.errors import AccessDenied, InvalidImage, InvalidRequest, NotFound, Unavailable
from runtime.image_model import Blob
from runtime.registry import retry_plan
from runtime.registry.address import Endpoint
from runtime.registry.permission import Permission

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
SILENCE_S_MAX = 30.0  # of a connection that should send
CHUNK_BYTES = 256 << 10
REDIRECTS_MAX = 5
WORDS_LENGTH_MAX = 300
RESUMES_MAX = 50  # of one blob, each of which brought bytes
CONNECTIONS_MAX = 8
CONNECT_TRIES_MAX = 2
ASKED_MAX = 2  # for permission, for one request: a token may have run out
_chance = random.SystemRandom().random
MANIFEST_ACCEPT = ", ".join((*image_model.MANIFEST_TYPES, *image_model.INDEX_TYPES))


@dataclass(frozen=True)
class Document:
    """A manifest or an index as the registry sent it."""

    data: bytes
    media_type: str

    @property
    def digest(self) -> str:
        return image_model.digest_of(self.data)


class RegistryClient:
    """Use `opened`. All methods raise RuntimeFailure in words that name the registry."""

    def __init__(self, endpoint: Endpoint, http: httpx.AsyncClient) -> None:
        self.endpoint = endpoint
        self._http = http
        self._permission = Permission(endpoint, http)

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, endpoint: Endpoint) -> AsyncIterator[RegistryClient]:
        """A client whose connections end with the block. Raises InvalidRequest where its CA is none."""
        verify = await trio.to_thread.run_sync(_trust, endpoint)
        async with httpx.AsyncClient(
            verify=verify,
            timeout=httpx.Timeout(SILENCE_S_MAX, connect=CONNECT_TIMEOUT_S, pool=None),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
            follow_redirects=True,  # blobs lie elsewhere; httpx takes Authorization to no other host
            max_redirects=REDIRECTS_MAX,
            headers={"User-Agent": "fairway"},
        ) as http:
            yield cls(endpoint, http)

    async def check(self) -> None:
        """That the registry is there and lets its user in; raises AccessDenied or Unavailable."""
        async with self._answer("GET", "/v2/", "", {}, "its API"):
            pass

    async def digest_of(self, repository: str, reference: str) -> str:
        """What a tag stands for now, without reading it (Docker Hub does not count that as a pull); empty where
        the registry does not say. Raises NotFound."""
        path = f"/v2/{repository}/manifests/{reference}"
        headers = {"Accept": MANIFEST_ACCEPT}
        async with self._answer("HEAD", path, _scope(repository), headers, f"{repository}:{reference}") as response:
            text = response.headers.get("Docker-Content-Digest", "")
        try:
            return image_model.checked_digest(text, "the registry's answer") if text else ""
        except InvalidImage:
            return ""

    async def manifest(self, repository: str, reference: str) -> Document:
        """The manifest or index that a tag or digest names; one by digest is verified. Raises NotFound or
        InvalidImage."""
        path = f"/v2/{repository}/manifests/{reference}"
        headers = {"Accept": MANIFEST_ACCEPT}
        separator = "@" if reference.startswith("sha256:") else ":"
        what = f"{repository}{separator}{reference}"
        data = b""
        async with self._answer("GET", path, _scope(repository), headers, what) as response:
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
            try:
                async for chunk in response.aiter_bytes(CHUNK_BYTES):
                    data += chunk
                    if len(data) > image_model.DOCUMENT_BYTES_MAX:
                        raise InvalidImage(f"the manifest of {what} is larger than a document may be")
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
        document = Document(data, kind)
        if separator == "@" and document.digest != reference:
            raise InvalidImage(f"registry {self.endpoint.name} sent something else for {what}")
        return document

    async def blob(self, repository: str, blob: Blob, start_bytes: int = 0) -> AsyncGenerator[bytes, None]:
        """A blob's bytes from `start_bytes` on; a download that breaks off is gone on with where it broke off
        (Range, RFC 9110, 14). Whoever takes the bytes verifies them. Raises NotFound, Unavailable."""
        offset, barren = start_bytes, 0
        for _ in range(RESUMES_MAX):
            before = offset
            try:
                async with contextlib.aclosing(self._part(repository, blob, offset)) as chunks:
                    async for chunk in chunks:
                        offset += len(chunk)
                        yield chunk
                if offset >= blob.size_bytes:
                    return
                failure: Exception = Unavailable(f"registry {self.endpoint.name} sent {blob.digest} in part only")
            except httpx.HTTPError as error:
                failure = self._unreachable(error)
            barren = 0 if offset > before else barren + 1
            if barren >= retry_plan.TRIES_MAX:
                raise failure
            log.info("%s: going on at byte %d of %d", failure, offset, blob.size_bytes)
            await trio.sleep(retry_plan.wait_s(barren + 1, _chance()))
        raise Unavailable(f"registry {self.endpoint.name} breaks off again and again while it sends {blob.digest}")

    async def _part(self, repository: str, blob: Blob, offset: int) -> AsyncGenerator[bytes, None]:
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        path = f"/v2/{repository}/blobs/{blob.digest}"
        async with self._answer("GET", path, _scope(repository), headers, f"{repository}, {blob.digest}") as response:
            skipped = 0 if response.status_code == 206 else offset  # a server may not know ranges
            if response.status_code == 206 and not _begins_at(response, offset):
                raise Unavailable(f"registry {self.endpoint.name} sent another part of {blob.digest} than was asked")
            gathered = bytearray()
            try:
                async for chunk in response.aiter_raw():  # with a size it would lose what came before a break
                    gathered += chunk[skipped:]
                    skipped = max(0, skipped - len(chunk))
                    if len(gathered) >= CHUNK_BYTES:
                        yield bytes(gathered)
                        gathered.clear()
            except httpx.HTTPError:
                if gathered:
                    yield bytes(gathered)
                raise
            if gathered:
                yield bytes(gathered)

    @contextlib.asynccontextmanager
    async def _answer(
        self, method: str, path: str, scope: str, headers: Mapping[str, str], what: str
    ) -> AsyncIterator[httpx.Response]:
        """A good answer whose body is not read yet."""
        response = await self._opened_answer(method, path, scope, headers, what)
        try:
            yield response
        finally:
            with trio.CancelScope(shield=True):
                await response.aclose()

    async def _opened_answer(
        self, method: str, path: str, scope: str, headers: Mapping[str, str], what: str
    ) -> httpx.Response:
        attempt, asked = 0, 0
        while True:
            attempt += 1
            sent = self._permission.headers(scope)
            request = self._http.build_request(method, f"{self.endpoint.base_url}{path}", headers={**headers, **sent})
            try:
                response = await self._http.send(request, stream=True)
            except httpx.TransportError as error:
                if attempt >= _tries_max(error):
                    raise self._unreachable(error) from error
                await trio.sleep(retry_plan.wait_s(attempt, _chance()))
                continue
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
            if response.status_code in (200, 206):
                return response
            words = await _words(response)
            if response.status_code == 401 and asked < ASKED_MAX:
                asked += 1
                if await self._permission.ask(response.headers.get_list("WWW-Authenticate"), scope, sent):
                    attempt -= 1
                    continue
            wait_s = retry_plan.repeat_after_s(
                response.status_code, response.headers.get("Retry-After", ""), attempt, _chance(), time.time()
            )
            if wait_s is None:
                raise self._refusal(response, what, words)
            await trio.sleep(wait_s)

    def _refusal(self, response: httpx.Response, what: str, words: str) -> Exception:
        name, status = self.endpoint.name, response.status_code
        said = f" ({words})" if words else ""
        if status in (401, 403):
            who = f"user {self.endpoint.user}" if self.endpoint.user else "strangers"
            return AccessDenied(
                f"registry {name} does not let {who} read {what}{said}: it is not there, or "
                f"`fairway registry login {name}` is needed"
            )
        if status == 404:
            return NotFound(f"registry {name} has no {what}{said}")
        if status == 429:
            after = retry_plan.asked_wait_s(response.headers.get("Retry-After", ""), time.time())
            when = f"in {round(after / 60)} minutes" if after else "later"
            return Unavailable(
                f"registry {name} limits how much may be pulled{said}: try again {when}, log in "
                f"(`fairway registry login {name}`), or name a mirror"
            )
        return Unavailable(f"registry {name} answers {what} with HTTP status {status}{said}")

    def _unreachable(self, error: Exception) -> Exception:
        name = self.endpoint.name
        words = _reason(error)
        if "CERTIFICATE_VERIFY_FAILED" in words:
            detail = words.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or words
            return Unavailable(
                f"registry {name} shows a certificate that is not trusted ({detail}): give the cluster its CA, "
                f"`fairway registry set {name} --ca FILE`"
            )
        if "WRONG_VERSION_NUMBER" in words or "RECORD_LAYER_FAILURE" in words:
            return Unavailable(
                f"registry {name} does not speak TLS: where that is meant, `fairway registry set {name} --insecure`"
            )
        return Unavailable(f"registry {name} does not answer: {words}")


def _scope(repository: str) -> str:
    return f"repository:{repository}:pull"


def _reason(error: BaseException) -> str:
    """The words of the failure that began it: those above it, of trio, httpcore and httpx, often have none."""
    words, cause = str(error), error.__cause__ or error.__context__
    while cause is not None:
        words = str(cause) or words
        cause = cause.__cause__ or cause.__context__
    return words or type(error).__name__


def _tries_max(error: httpx.TransportError) -> int:
    """Trying again makes no certificate good, and rarely lets a server listen that does not."""
    reason = _reason(error)
    if "SSL" in reason and "EOF" not in reason:
        return 1
    return CONNECT_TRIES_MAX if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) else retry_plan.TRIES_MAX


def _begins_at(response: httpx.Response, offset: int) -> bool:
    text: str = response.headers.get("Content-Range", "")
    return text.removeprefix("bytes").strip().partition("-")[0] == str(offset)


async def _words(response: httpx.Response) -> str:
    """What a refusal says for people (distribution-spec, "Error Codes"); closes the answer."""
    data = b""
    with contextlib.suppress(httpx.HTTPError):
        async for chunk in response.aiter_bytes(4096):
            data += chunk
            if len(data) > 64 << 10:
                break
    with trio.CancelScope(shield=True):
        await response.aclose()
    try:
        errors = json.loads(data)["errors"]
        texts = [str(each.get("message") or each.get("code")) for each in errors]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    line = "; ".join(" ".join(text.split()) for text in texts)
    return line[:WORDS_LENGTH_MAX]


def _trust(endpoint: Endpoint) -> ssl.SSLContext | bool:
    if endpoint.plain_http and not endpoint.authority_pem:
        return True  # where it redirects to HTTPS, as everywhere
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()  # the system's, which an administrator may have added to
    if endpoint.authority_pem:
        try:
            context.load_verify_locations(cadata=endpoint.authority_pem)
        except ssl.SSLError as error:
            raise InvalidRequest(f"the CA for registry {endpoint.name} is not a PEM certificate: {error}") from error
    return context
