"""SMART backend services: FLUTE signs a request with its private key and gets a short-lived access token.

Steps: 1 the server's .well-known/smart-configuration names the token endpoint, which must be on the server's own
origin or be named by the operator   2 an assertion is signed (RS384 or ES384), good for four minutes and once
3 it is exchanged for a token   4 the token is used until shortly before its end, or until the server says 401.
Source: SMART App Launch 2.2, "Backend Services" and "Client authentication: asymmetric"; RFC 7523.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from msgspec import Struct

from flute.defaults.records import ASSERTION_LIFETIME_S, TOKEN_LIFETIME_S, TOKEN_RENEW_S
from flute.errors import KeyFileError, MisuseError, Unmappable, Unreachable
from flute.fhirserver.address import read_origin
from flute.fhirserver.connection import Check, Connection, Declined
from flute.fhirserver.options import Smart
from flute.fhirserver.wire import Call, Secret
from flute.homes import read_secret_file

_WELL_KNOWN: Final = "/.well-known/smart-configuration"
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_RSA_BITS: Final = 2_048
_CURVES: Final = {"P-384": "ES384"}
SCOPE_V1: Final = "system/*.read"
SCOPE_V2: Final = "system/*.rs"


class SmartConfiguration(Struct):
    token_endpoint: str = ""
    grant_types_supported: tuple[str, ...] = ()
    token_endpoint_auth_signing_alg_values_supported: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()


class TokenAnswer(Struct):
    access_token: str = ""
    token_type: str = ""
    expires_in: float = TOKEN_LIFETIME_S

    def __repr__(self) -> str:
        return "TokenAnswer(...)"


class SmartTokens:
    """Credentials that are fetched when they are needed. `connection`: to the FHIR server, without credentials.

    Raises, on making: KeyFileError, MisuseError: the key cannot be used.
    """

    travels = True

    def __init__(self, connection: Connection, auth: Smart, *, allow_http: bool) -> None:
        self._connection, self._auth, self._allow_http = connection, auth, allow_http
        self._key, self._algorithm = _load_key(auth)
        self._token: Secret | None = None
        self._until = 0.0
        self._found: SmartConfiguration | None = None

    def header(self) -> Secret | None:
        clock = self._connection.wire.around.clock
        if self._token is None or clock() >= self._until:
            asked = clock()
            answer = self._fetch()
            self._token = Secret(f"Bearer {answer.access_token}")
            # A token of under a minute is used for half its life; renewing it at once would never end.
            self._until = asked + max(answer.expires_in - TOKEN_RENEW_S, answer.expires_in / 2)
        return self._token

    def renew(self) -> bool:
        had, self._token = self._token, None
        return had is not None

    # --- steps -----------------------------------------------------------------------------------------

    def _fetch(self) -> TokenAnswer:
        endpoint, check, scope = self._where()
        form = {"grant_type": "client_credentials", "scope": scope, "client_assertion_type": _ASSERTION}

        def attempt() -> TokenAnswer:
            # Signed anew for every attempt: a server takes the same assertion only once.
            body = urlencode({**form, "client_assertion": self._assertion(endpoint).reveal()}).encode()
            headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
            call = Call(endpoint, "POST", headers, body)
            connection = self._connection
            with connection.following(call, check, authorised=False) as answer:
                return connection.decoded(connection.whole(answer), TokenAnswer)

        try:
            answer = self._connection.wire.persist(attempt)
        except Declined as declined:
            also = f", it says {declined.said}" if declined.said else ""
            raise Unreachable(
                f"The server {self._connection.host} gives FLUTE no access token (status {declined.status}{also}). "
                f"It must know the client {self._auth.client_id} and the public half of its key, and allow the scope."
            ) from declined
        if answer.token_type.lower() != "bearer" or not _is_token(answer.access_token):
            raise Unmappable(f"The token endpoint of {self._connection.host} gives no bearer token.")
        return answer

    def _where(self) -> tuple[str, Check, str]:
        """The token endpoint, the check it passed, and the scope to ask for."""
        found = self._configuration()
        connection, auth = self._connection, self._auth
        scope = auth.scope or (SCOPE_V2 if "permission-v2" in found.capabilities else SCOPE_V1)
        endpoint = auth.token_endpoint or found.token_endpoint
        if not endpoint:
            raise Unmappable(
                f"The server {connection.host} names no token endpoint. Write it as token_endpoint below auth, or "
                "use another kind of auth."
            )
        others = (read_origin(auth.token_endpoint, allow_http=self._allow_http),) if auth.token_endpoint else ()
        check = connection.among(others, "a token endpoint", "token_endpoint below auth in the server's options")
        return endpoint, check, scope

    def _configuration(self) -> SmartConfiguration:
        """Read once. A server needs none where the operator names the endpoint."""
        if self._found is None:
            connection = self._connection
            try:
                self._found = connection.ask(
                    Call(connection.base.url + _WELL_KNOWN, headers={"accept": "application/json"}),
                    check=connection.below("a description of its logins"),
                    read=lambda answer: connection.decoded(connection.whole(answer), SmartConfiguration),
                    authorised=False,
                )
            except (Declined, Unmappable):
                if not self._auth.token_endpoint:
                    raise
                self._found = SmartConfiguration()
            self._check_offer(self._found)
        return self._found

    def _check_offer(self, found: SmartConfiguration) -> None:
        host, offered = self._connection.host, found.token_endpoint_auth_signing_alg_values_supported
        if found.grant_types_supported and "client_credentials" not in found.grant_types_supported:
            raise Unmappable(f"The server {host} offers no SMART backend services (client_credentials) login.")
        if offered and self._algorithm not in offered:
            raise Unmappable(
                f"The server {host} does not take signatures by {self._algorithm}, which FLUTE's key makes. Make a "
                "key for an algorithm that it takes (RS384 or ES384)."
            )

    def _assertion(self, endpoint: str) -> Secret:
        from authlib.oauth2.rfc7523 import private_key_jwt_sign

        header = {"typ": "JWT"} | ({"kid": self._auth.key_id} if self._auth.key_id else {})
        now = int(self._connection.wire.around.now().timestamp())
        signed: str = private_key_jwt_sign(
            self._key,
            self._auth.client_id,
            endpoint,
            alg=self._algorithm,
            header=header,
            issued_at=now,
            expires_at=now + ASSERTION_LIFETIME_S,
        )
        return Secret(signed)


def _is_token(text: str) -> bool:
    return bool(text) and all("!" <= letter <= "~" for letter in text)


def _load_key(auth: Smart) -> tuple[Any, str]:
    """The private key and the algorithm that it signs by. From PEM or JWK.

    Raises: MisuseError: authlib is not installed. KeyFileError: no private RSA (2048 bits) or P-384 key.
    """
    try:
        from joserfc.jwk import ECKey, RSAKey, import_key
    except ImportError as error:
        raise MisuseError("SMART backend services need authlib: pip install 'flute[data]'.") from error
    path = Path(auth.key_file)
    raw = read_secret_file(path)
    refused = KeyFileError(
        f"{path.name} holds no private key that SMART servers take: RSA of 2048 bits or more (RS384) or P-384 "
        "(ES384), as PEM or JWK, without a passphrase."
    )
    try:
        key = import_key(json.loads(raw)) if raw.lstrip().startswith(b"{") else _from_pem(raw, RSAKey, ECKey)
    except Exception:  # noqa: BLE001 whatever a parser of keys raises; its text may hold a part of the key
        raise refused from None
    algorithm = _algorithm_of(key) if key is not None else ""
    if not algorithm or not key.is_private:
        raise refused
    if auth.algorithm not in ("", algorithm):
        raise KeyFileError(f"{path.name} holds a key for {algorithm}, and the options say {auth.algorithm}.")
    return key, algorithm


def _from_pem(raw: bytes, rsa: Any, curve: Any) -> Any:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    loaded = load_pem_private_key(raw, password=None)
    if not isinstance(loaded, RSAPrivateKey):
        return curve.import_key(raw)
    return rsa.import_key(raw) if loaded.key_size >= _RSA_BITS else None


def _algorithm_of(key: Any) -> str:
    if key.key_type == "RSA":
        return "RS384" if key.raw_value.key_size >= _RSA_BITS else ""
    return _CURVES.get(str(key.as_dict().get("crv")), "") if key.key_type == "EC" else ""
