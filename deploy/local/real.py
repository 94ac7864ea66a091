"""Which parts the caller's environment replaces by the real thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ANTHROPIC = (
    *("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL"),
    *("ANTHROPIC_CONVERSATION_MODEL", "ANTHROPIC_CHEAP_MODEL"),
)
SUPABASE = ("SUPABASE_URL", "SUPABASE_JWT_SECRET")
GRAPH = ("WHATSAPP_GRAPH_URL", "WHATSAPP_TOKEN_KEYS", "WHATSAPP_TOKEN_PUBLIC_KEY")
BESIDE_GRAPH = ("MEDIA_HOSTS",)


@dataclass(frozen=True, slots=True)
class RealParts:
    """Empty where the local stand-in serves."""

    database_url: str = field(default="", repr=False)
    redis_url: str = field(default="", repr=False)
    anthropic: Mapping[str, str] = field(default_factory=dict, repr=False)
    supabase: Mapping[str, str] = field(default_factory=dict, repr=False)
    # Any of them set: Meta's own Graph API, at its own address unless one is given.
    graph: Mapping[str, str] = field(default_factory=dict, repr=False)
    app_secrets: str = field(default="", repr=False)
    verify_token: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> RealParts:
        """Read what the caller has set; set but empty counts as not set."""

        def group(leader: str, names: tuple[str, ...]) -> dict[str, str]:
            return (
                {name: environment[name] for name in names if environment.get(name)} if environment.get(leader) else {}
            )

        return cls(
            database_url=environment.get("DATABASE_URL", ""),
            redis_url=environment.get("REDIS_URL", ""),
            anthropic=group("ANTHROPIC_API_KEY", ANTHROPIC),
            supabase=group("SUPABASE_URL", SUPABASE),
            graph={name: environment[name] for name in (*GRAPH, *BESIDE_GRAPH) if environment.get(name)}
            if any(environment.get(name) for name in GRAPH)
            else {},
            app_secrets=environment.get("WHATSAPP_APP_SECRETS", ""),
            verify_token=environment.get("WHATSAPP_VERIFY_TOKEN", ""),
        )

    def names(self) -> list[str]:
        """Name the real parts, for people."""
        parts = {
            "PostgreSQL (DATABASE_URL)": self.database_url,
            "Redis (REDIS_URL)": self.redis_url,
            "Claude (ANTHROPIC_API_KEY)": self.anthropic,
            "sign-in (SUPABASE_URL)": self.supabase,
            f"Meta's Graph API ({next(iter(self.graph), '')})": self.graph,
            "Meta's webhooks (WHATSAPP_APP_SECRETS)": self.app_secrets,
            "Meta's verification (WHATSAPP_VERIFY_TOKEN)": self.verify_token,
        }
        return [name for name, value in parts.items() if value]
