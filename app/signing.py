"""Our own signatures: of sessions, forms, links to pay and offers of a rate.

All are HMAC-SHA-256 by the present SECRET_KEY. What an older key of SECRET_KEY_FALLBACKS signed
is still good, and so is what was signed with SHA-1 before.
"""

import hashlib
from typing import Any

from itsdangerous import URLSafeSerializer, URLSafeTimedSerializer

import config


def serializer(salt: str) -> URLSafeSerializer:
    """Signs values for one purpose, which is the salt."""
    return URLSafeSerializer(_keys(config.current()), salt=salt, **_digests("django-concat"))


def timed(settings: config.Settings, salt: str, *, derivation: str = "django-concat", **options: Any) -> URLSafeTimedSerializer:
    """The same with the time of signing; made from settings, for the signers of a whole app."""
    return URLSafeTimedSerializer(_keys(settings), salt=salt, **_digests(derivation), **options)


def _keys(settings: config.Settings) -> list[str]:
    """Oldest first: the last one signs, all verify."""
    return [*reversed(settings.secret_key_fallbacks), settings.secret_key]


def _digests(derivation: str) -> dict[str, Any]:
    now = {"key_derivation": derivation, "digest_method": hashlib.sha256}
    before = {"key_derivation": derivation, "digest_method": hashlib.sha1}
    return {"signer_kwargs": now, "fallback_signers": [before]}
