"""Access tokens: signed, scoped, expiring; or those of an OpenID Connect issuer, by its key set."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from jwt.types import Options
from starlette.requests import Request

from shared.clock import present
from shared.errors import OutOfScope, Unauthenticated, Unavailable
from shared.ids import new_id
from shared.secrets import Secrets
from shared.settings import Settings
from shared.web._limits import Limits
from shared.web._revocations import Revocations

ISSUER = "throughline"
SERVICES = ("capture", "scoring", "routing", "nurture", "attribution")
SCOPES = frozenset(f"{service}:{right}" for service in SERVICES for right in ("read", "write", "admin"))
LONGEST = timedelta(days=3_650)
"""No token is good for longer, so that what was revoked need not be known for ever."""
_CACHED = 1_000
_KEYS_WITHIN_S = 5
"""Tokens wait one behind another for an issuer that does not answer."""
TIMES_APART: Options = {"require": ["exp"], "verify_exp": False, "verify_iat": False, "verify_nbf": False}
"""Times are looked at here: the library goes by the machine's clock, which may be set wrong."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what it may do."""

    subject: str
    scopes: frozenset[str]
    expires_at: float

    def may(self, scope: str) -> bool:
        """Whether the scope is given; `admin` of a service includes `write`, and that includes `read`."""
        service, _, right = scope.partition(":")
        if scope in self.scopes or f"{service}:admin" in self.scopes:
            return True
        return right == "read" and f"{service}:write" in self.scopes


def create_token(secrets: Secrets, scopes: list[str], expires: timedelta, now: datetime, subject: str = "cli") -> str:
    """A token for these scopes. Raises ValueError for a scope that does not exist, and a time that is too long."""
    unknown = sorted(set(scopes) - SCOPES)
    if unknown or not scopes:
        raise ValueError(f"unknown scopes: {', '.join(unknown) or 'none given'}; there are {', '.join(sorted(SCOPES))}")
    if expires > LONGEST:
        raise ValueError(f"no token is good for more than {LONGEST.days} days")
    claims = {
        "iss": ISSUER,
        "sub": subject,
        "scope": " ".join(sorted(set(scopes))),
        "iat": now.timestamp(),  # to the microsecond: one may be made in the second in which others are revoked
        "exp": int((now + expires).timestamp()),
        "jti": new_id(),
    }
    return jwt.encode(claims, secrets.tokens, "HS256")


class Authenticator:
    """Checks bearer tokens; a token that was good is remembered until it expires, or others are revoked."""

    def __init__(self, settings: Settings, secrets: Secrets) -> None:
        self._key = secrets.tokens
        self._settings = settings
        self._good: OrderedDict[str, Principal] = OrderedDict()
        self._good_as_of = 0
        self.revocations = Revocations()
        self.limits = Limits(settings)
        self._jwks = jwt.PyJWKClient(settings.oidc_jwks_url, timeout=_KEYS_WITHIN_S) if settings.oidc_jwks_url else None

    async def principal(self, authorization: str | None) -> Principal:
        """Who a request's Authorization header speaks for. Raises Unauthenticated."""
        if authorization is None:
            raise Unauthenticated("send `Authorization: Bearer <token>`; `throughline tokens create` makes one")
        if self._good_as_of != self.revocations.number:
            self._good.clear()
            self._good_as_of = self.revocations.number
        principal = self._good.get(authorization)
        if principal is not None and principal.expires_at > present.now().timestamp():
            return principal
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("the Authorization header is not `Bearer <token>`")
        claims = await self._claims(token.strip())
        given = claims.get("scope") or claims.get("scp") or ""
        scopes = given.split() if isinstance(given, str) else map(str, given)
        principal = Principal(str(claims.get("sub", "")), frozenset(scopes), float(claims["exp"]))
        self._good[authorization] = principal
        if len(self._good) > _CACHED:
            self._good.popitem(last=False)
        return principal

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            if self._jwks is not None and jwt.get_unverified_header(token).get("alg") != "HS256":
                key = await asyncio.to_thread(self._jwks.get_signing_key_from_jwt, token)
                claims = jwt.decode(
                    token,
                    key.key,
                    algorithms=["RS256", "ES256", "EdDSA"],
                    issuer=self._settings.oidc_issuer,
                    audience=self._settings.oidc_audience,
                    options=TIMES_APART,
                )
            else:
                claims = jwt.decode(token, self._key, algorithms=["HS256"], issuer=ISSUER, options=TIMES_APART)
            now = present.now().timestamp()
            made, begins, ends = float(claims.get("iat", 0)), int(claims.get("nbf", 0)), int(claims["exp"])
        except jwt.PyJWKClientConnectionError as exc:
            raise Unavailable("the issuer of the token does not answer with its keys") from exc
        except (jwt.PyJWTError, TypeError, ValueError) as exc:
            raise Unauthenticated("the token is not valid here") from exc
        if ends <= now:
            raise Unauthenticated("the token has expired; make a new one")
        if begins > now:
            raise Unauthenticated("the token is not valid yet")
        if self.revocations.cover(str(claims.get("jti", "")), str(claims.get("sub", "")), made):
            raise Unauthenticated("the token was revoked; make a new one")
        return claims


async def authorise(request: Request, scope: str) -> Principal:
    """The request's principal if it has the scope. Raises Unauthenticated, QuotaExceeded or OutOfScope."""
    authenticator: Authenticator = request.app.state.authenticator
    authorization = request.headers.get("authorization")
    principal = await authenticator.principal(authorization)
    authenticator.limits.take(request, authorization or "")
    if not principal.may(scope):
        raise OutOfScope(f"this needs the scope {scope}")
    request.state.principal = principal
    return principal


def read_token(secrets: Secrets, token: str) -> tuple[str, datetime | None]:
    """The id of a token, and until when it is good where it was made here. Raises ValueError for what has none."""
    try:
        claims = jwt.decode(token, secrets.tokens, ["HS256"], options=TIMES_APART, issuer=ISSUER)
        ends = datetime.fromtimestamp(int(claims["exp"]), UTC)
    except jwt.PyJWTError:
        claims, ends = _of_others(token), None
    if not claims.get("jti"):
        raise ValueError("it has no id (`jti`)")
    return str(claims["jti"]), ends


def _of_others(token: str) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError as exc:
        raise ValueError("it is no token") from exc
    return claims


def requires(scope: str) -> Callable[[Request], Coroutine[Any, Any, Principal]]:
    """A FastAPI dependency that lets only holders of the scope pass, and answers the principal."""

    async def check(request: Request) -> Principal:
        return await authorise(request, scope)

    return check
