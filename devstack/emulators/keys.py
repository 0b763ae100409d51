"""The P-256 signing keys in the emulator's folder: made on the first start, kept over a restart."""

from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key in a file, which is written if it is missing."""
    if path.exists():
        kept = serialization.load_pem_private_key(path.read_bytes(), password=None)
        return cast(ec.EllipticCurvePrivateKey, kept)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(pem)
    return key
