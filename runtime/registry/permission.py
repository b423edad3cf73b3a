"""Permission to read: basic authentication, or tokens by a Bearer challenge (distribution's "token" specification)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import trio

from runtime.errors import AccessDenied, Unavailable
from runtime.registry.address import Endpoint
from runtime.registry.challenge import Challenge, find, parse_challenges

CLIENT_ID = "fairway"
TOKEN_LIFE_S_DEFAULT = 60.0  # where the answer does not say (the specification's)
TOKEN_SPARE_S = 10.0  # so long before its end a token is not used any more
TOKEN_BYTES_MAX = 64 << 10
REFRESH_USER = "<token>"


@dataclass(frozen=True)
class _Token:
    text: str
    until_s: float  # trio's clock


class Permission:
    """The Authorization header for each scope; tokens are kept as long as they live."""

    def __init__(self, endpoint: Endpoint, http: httpx.AsyncClient) -> None:
        self._endpoint = endpoint
        self._http = http
        self._tokens: dict[str, _Token] = {}
        self._basic = False
        self._asking = trio.Lock()  # parallel downloads share one token

    def headers(self, scope: str) -> dict[str, str]:
        """What is known to be wanted, of what is still good."""
        if self._basic:
            return {"Authorization": self._basic_text()}
        token = self._tokens.get(scope)
        if token is None or token.until_s <= trio.current_time():
            return {}
        return {"Authorization": f"Bearer {token.text}"}

    async def ask(self, answers: list[str], scope: str, refused: Mapping[str, str]) -> bool:
        """Gets what the WWW-Authenticate headers ask for; False where there is nothing new to offer.

        `refused`: the headers that did not do. A token may have run out, so another is got. Raises AccessDenied,
        Unavailable.
        """
        async with self._asking:
            if self.headers(scope) != refused and self.headers(scope):
                return True  # another download has asked meanwhile
            challenges = parse_challenges(answers)
            bearer = find(challenges, "bearer")
            if bearer is not None:
                self._tokens[scope] = await self._token(bearer, scope)
                return True
            if find(challenges, "basic") is None or self._basic or not self._endpoint.user:
                return False
            self._basic = True
            return True

    def _basic_text(self) -> str:
        pair = f"{self._endpoint.user}:{self._endpoint.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    async def _token(self, challenge: Challenge, scope: str) -> _Token:
        realm = challenge.parameters.get("realm", "")
        place = urlsplit(realm)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise Unavailable(f"registry {self._endpoint.name} names no place to get tokens from ({realm[:200]!r})")
        if place.scheme == "http" and not self._endpoint.plain_http:
            raise AccessDenied(
                f"registry {self._endpoint.name} would have its password sent to {realm[:200]} in the clear"
            )
        wanted = scope or challenge.parameters.get("scope", "")
        answer = await self._post_or_get(realm, challenge.parameters.get("service", ""), wanted)
        text = answer.get("token") or answer.get("access_token")
        life_s = answer.get("expires_in")
        if not isinstance(text, str) or not text or "\n" in text or "\r" in text:
            raise Unavailable(f"{realm} gave no token for registry {self._endpoint.name}")
        life = float(life_s) if isinstance(life_s, int | float) and life_s > 0 else TOKEN_LIFE_S_DEFAULT
        return _Token(text, trio.current_time() + max(life - TOKEN_SPARE_S, TOKEN_SPARE_S))

    async def _post_or_get(self, realm: str, service: str, scope: str) -> dict[str, Any]:
        fields = {name: value for name, value in (("service", service), ("scope", scope)) if value}
        user, password = self._endpoint.user, self._endpoint.password
        try:
            if user == REFRESH_USER:
                form = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "refresh_token": password, **fields}
                response = await self._http.post(realm, data=form)
            else:
                basic = {"Authorization": self._basic_text()} if user else {}
                url = httpx.URL(realm).copy_merge_params({**fields, **({"account": user} if user else {})})
                response = await self._http.get(url, headers=basic)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"{realm}, which gives tokens for registry {self._endpoint.name}, does not answer: "
                f"{str(error) or type(error).__name__}"
            ) from error
        if response.status_code in (400, 401, 403):
            said = "does not accept the user or password" if user else "gives no token to strangers"
            raise AccessDenied(f"registry {self._endpoint.name} {said}: `fairway registry login {self._endpoint.name}`")
        if response.status_code != 200 or len(response.content) > TOKEN_BYTES_MAX:
            raise Unavailable(f"{realm} gave no token: HTTP status {response.status_code}")
        try:
            answer = json.loads(response.content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise Unavailable(f"{realm} gave no token: its answer is not JSON")
        return answer
