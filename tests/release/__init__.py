"""What a release consists of: the wheel alone has all that a host needs; with RELEASE=1 it is tried in a bare Debian."""
