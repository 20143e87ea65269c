"""Leading out: how a sandbox without a network is given its way to the model and to the proxy."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from kapelle.core.isolation import Mount, MountKind, Way

RELAY = Path(__file__).with_name("relay.py")
INSIDE = "/run/kapelle-ways"
"""Where the sockets are found inside; a path of any length outside."""
RELAY_INSIDE = "/run/kapelle-relay.py"
PROXY_PORT = 3128
"""Where programs inside find the proxy: the port that proxies are most often found at."""
ANOTHER = 3129
"""For a model that is at that very port."""
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
"""What programs look at; most of them at the small letters, too, and some only at those."""
LOCAL = "localhost,127.0.0.1,::1"


class Leading:
    """What it takes to follow a way from inside; nothing where there is none."""

    def __init__(self, way: Way | None) -> None:
        self._way = way
        self._port = ANOTHER if way is not None and way.model == PROXY_PORT else PROXY_PORT

    def environment(self) -> Mapping[str, str]:
        """Return what tells programs of the proxy."""
        if self._way is None:
            return {}
        proxy = f"http://127.0.0.1:{self._port}"
        names = {name: proxy for upper in NAMES for name in (upper, upper.lower())}
        return {**names, "NO_PROXY": LOCAL, "no_proxy": LOCAL}

    def programs(self) -> tuple[str, ...]:
        """Return the programs that have to be there for it."""
        return () if self._way is None else (sys.executable,)

    def mounts(self) -> Iterator[Mount]:
        """Yield what has to be shown for it."""
        if self._way is not None:
            yield Mount(kind=MountKind.READ, path=INSIDE, source=self._way.folder)
            yield Mount(kind=MountKind.READ, path=RELAY_INSIDE, source=str(RELAY))

    def command(self) -> tuple[str, ...]:
        """Return what goes before the program."""
        if self._way is None:
            return ()
        leads = [f"{self._port}={INSIDE}/proxy"]
        leads += [] if self._way.model is None else [f"{self._way.model}={INSIDE}/model"]
        return (sys.executable, "-I", "-S", RELAY_INSIDE, *leads, "--")
