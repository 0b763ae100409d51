"""How a P-256 signing key is kept in the emulator's folder: made on the first start, the same one ever after."""

from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from devstack.emulators.files import write_whole


def ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Given where the key belongs, return it from there, or a new one that was written there."""
    if path.exists():
        kept = serialization.load_pem_private_key(path.read_bytes(), password=None)
        return cast(ec.EllipticCurvePrivateKey, kept)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_whole(path, pem, secret=True)
    return key
