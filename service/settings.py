"""The operator's settings: environment variables with the prefix `FEWSTEP_`."""

import ipaddress
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything the platform needs to know of where it runs; the defaults are the embedded, single-machine form."""

    model_config = SettingsConfigDict(env_prefix="FEWSTEP_", extra="ignore", frozen=True)

    home: Path = Field(Path(".fewstep"), description="Where the embedded default keeps everything.")
    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8700, ge=1, le=65535, description="Port of the API and dashboard.")
    gateway_port: int = Field(8701, ge=1, le=65535, description="Port of the inference gateway.")
    database_url: str = Field("", description="SQLAlchemy URL; empty means SQLite under home.")
    store_url: str = Field("", description="fsspec URL of the artifact store; empty means a folder under home.")
    public_url: str = Field("", description="URL by which the cluster reaches the API; empty means host and port.")
    gateway_url: str = Field("", description="URL of the gateway; empty means host and gateway port.")
    gateway_key: SecretStr = Field(
        SecretStr(""), description="Bearer token that the gateway asks for; may be empty while host is loopback."
    )
    replica_gpus: float = Field(0, ge=0, le=16, description="GPUs of each endpoint's replica; 0 serves on CPU.")
    ray_dashboard_url: str = Field("http://127.0.0.1:8265", description="Ray's Jobs and Serve REST API.")
    ray_token: SecretStr = Field(SecretStr(""), description="Ray's bearer token; empty means none.")
    max_body_bytes: int = Field(1_000_000, ge=1_000, description="Larger request bodies are refused.")
    reconcile_interval: float = Field(0.5, gt=0, description="Seconds between looks at the cluster.")
    reconcile_in_process: bool = Field(True, description="Run the reconciler inside the API process.")
    max_running: int = Field(2, ge=1, description="Jobs on the cluster at once.")
    reserve_after: float = Field(
        600, ge=0, description="Seconds that a job waits before nothing of its priority or below overtakes it."
    )
    preemption: bool = Field(True, description="Let a job take the place of running ones of lower priority.")
    max_losses: int = Field(10, ge=0, description="Attempts of one job that may be lost to dead processes or machines.")
    cancel_deadline: float = Field(60, gt=0, description="Seconds a job has to stop before it is stopped by force.")
    stall_deadline: float = Field(600, gt=0, description="Seconds without a report before an attempt is given up.")
    webhook_private_addresses: bool = Field(
        False, description="Let webhooks call private addresses; the network must then guard itself."
    )

    def resolved_home(self) -> Path:
        return self.home.expanduser().resolve()

    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.resolved_home() / 'fewstep.db'}"

    def resolved_store_url(self) -> str:
        return self.store_url or f"file://{self.resolved_home() / 'store'}"

    def resolved_public_url(self) -> str:
        return self.public_url or f"http://{self.host}:{self.port}"

    def resolved_gateway_url(self) -> str:
        return self.gateway_url or f"http://{self.host}:{self.gateway_port}"

    def on_loopback(self) -> bool:
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    def api_key_file(self) -> Path:
        return self.resolved_home() / "api_key"
