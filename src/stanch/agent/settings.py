"""Where the agent keeps its things on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CONFIG_VARIABLE = "STANCH_AGENT_CONFIG"
STATE_VARIABLE = "STANCH_AGENT_STATE"
SOCKET_VARIABLE = "STANCH_AGENT_SOCKET"

CODE_SOCKET = "code.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The agent's places; each may be overridden for tests and for the demo."""

    config: Path = Path("/etc/stanch/agent.toml")
    """The local policy, written by the owner of the machine."""

    state: Path = Path("/var/lib/stanch/agent")
    """Identity and journal; only the agent's own account may enter."""

    socket: Path = Path("/run/stanch/agent.sock")
    """Where `stanch local` reaches a running agent."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """The places that the environment names, the usual ones otherwise."""
        named = {"config": CONFIG_VARIABLE, "state": STATE_VARIABLE, "socket": SOCKET_VARIABLE}
        return cls(**{place: Path(environ[variable]) for place, variable in named.items() if environ.get(variable)})

    @property
    def code_socket(self) -> Path:
        """Where every user of the machine may ask about its isolation, and lift it with the release code."""
        return self.socket.with_name(CODE_SOCKET)

    @property
    def journal(self) -> Path:
        """The agent's journal."""
        return self.state / "journal.db"

    @property
    def vault(self) -> Path:
        """The vault, unless the local policy puts it elsewhere."""
        return self.state / "vault"

    @property
    def vault_key(self) -> Path:
        """The endpoint's own key to what is in the vault."""
        return self.state / "vault.key"

    @property
    def programs(self) -> Path:
        """Where the output of programs is kept until it is sent."""
        return self.state / "programs"

    @property
    def content(self) -> Path:
        """Rules and indicators to scan with."""
        return self.state / "content"

    @property
    def scans(self) -> Path:
        """What scans know of files that did not change since."""
        return self.state / "scans"

    @property
    def addresses(self) -> Path:
        """The addresses of the server that were seen last."""
        return self.state / "addresses.json"
