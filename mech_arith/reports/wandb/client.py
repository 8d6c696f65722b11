"""The wandb library: imported late, kept quiet, and asked whether there is a server."""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cache
from types import ModuleType

from mech_arith.reports.wandb.environment import without_runs

URL = "WANDB_BASE_URL"
"""Variable that holds the server's address."""

PROBE_SECONDS = 6.0
"""A server that does not answer a plain request for so long counts as not reachable."""


def load_wandb() -> ModuleType:
    """The module wandb, imported when it is first needed, and quiet."""
    # wandb reports its own use to its server, even of offline runs, and waits for the answer when
    # the program ends: on a machine without a network, half a minute of silence.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    with without_runs():
        _bad_url()
        wandb.setup(settings=wandb.Settings(silent=True))
    return wandb


@cache
def _bad_url() -> str | None:
    """What is wrong with the server's address; None if nothing is.

    A bad one is taken out of the environment: with it wandb would not even write an offline run.
    wandb reads the environment once in a process, and so does this.
    """
    import wandb

    url = os.environ.get(URL)
    if url is None:
        return None
    try:
        wandb.Settings(base_url=url)
    except ValueError:
        del os.environ[URL]
        return f"no URL in {URL}: {url!r} (set it to https://... or http://...)"
    return None


def no_server(*, within_s: float = PROBE_SECONDS) -> str | None:
    """Why nothing can be sent: no server answers, or there is no API key. None if all is well."""
    wandb = load_wandb()
    if bad := _bad_url():
        return bad
    shared = wandb.setup(settings=wandb.Settings(mode="online")).settings
    proxies = {"http": shared.http_proxy, "https": shared.https_proxy}
    reason = _unreachable(
        shared.base_url,
        proxies={kind: url for kind, url in proxies.items() if url},
        within_s=min(within_s, PROBE_SECONDS),
    )
    if reason is not None:
        return f"no answer from {shared.base_url} ({reason})"
    # Without a key wandb would wait for someone to type one.
    try:
        if not wandb.login(prompt=False, verify=False):
            return f"no API key for {shared.base_url} (set one with `wandb login`)"
    except wandb.Error as error:
        return f"no usable API key for {shared.base_url} ({one_line(error)})"
    return None


def _unreachable(url: str, *, proxies: Mapping[str, str], within_s: float) -> str | None:
    """Why no server answers at `url`; None if one does, whatever it answers.

    A thread bounds the whole time: looking up a name can hang for much longer than a connection.
    """
    found: list[str | None] = []

    def ask() -> None:
        handler = urllib.request.ProxyHandler(dict(proxies) if proxies else None)
        try:
            urllib.request.build_opener(handler).open(url, timeout=within_s).close()
        except urllib.error.HTTPError:
            found.append(None)
        except urllib.error.URLError as error:
            # A doubtful certificate is still a server: wandb has its own settings for that.
            found.append(None if "SSL" in str(error.reason) else one_line(error.reason))
        except OSError as error:
            found.append(one_line(error))
        else:
            found.append(None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(within_s)
    return found[0] if found else f"waited {within_s:.0f} s"


def one_line(error: object) -> str:
    """The first line of an error."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.strip().partition("\n")[0]
