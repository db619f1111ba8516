"""The application in a process with few descriptors."""

import resource

from application import application

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
__all__ = ["application"]
