"""The certificate of https://localhost, and the throw-away authority (ca.pem) that signed it.

The two differ, for TLS in Rust refuses an authority's own certificate as a server's.
"""

from pathlib import Path

import trustme

CA_FILE = "ca.pem"


def ensure_certificates(folder: Path) -> tuple[Path, Path]:
    """Given the emulator's folder, return its (certificate, key) files, made on the first start with their ca.pem.

    The authority's key is thrown away, so nothing else can ever be signed with it.
    """
    authority, certificate, key = folder / CA_FILE, folder / "server.pem", folder / "server-key.pem"
    if not authority.exists():
        signer = trustme.CA()
        server = signer.issue_cert("localhost", "127.0.0.1", "::1")
        server.private_key_pem.write_to_path(key)
        server.cert_chain_pems[0].write_to_path(certificate)
        signer.cert_pem.write_to_path(authority)
    return certificate, key
