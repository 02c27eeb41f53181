"""The operator's settings: environment variables with the prefix `FEWSTEP_`.

Each may be given instead as `FEWSTEP_<NAME>_FILE`, the path of a file that holds it, as secrets are mounted.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "FEWSTEP_"
FILE = "_FILE"
OTHERS = ("FEWSTEP_URL", "FEWSTEP_API_KEY", "FEWSTEP_SUPERVISED", "FEWSTEP_ATTEMPT_ID", "FEWSTEP_ATTEMPT_TOKEN")
"""Variables with the prefix that are not the operator's: clients' and the cluster's side of a job."""


class WrongSetting(ValueError):
    """A variable that is not a setting, or one that cannot be taken; the message names it and the fix."""


class Files(PydanticBaseSettingsSource):
    """Settings from the files that `FEWSTEP_<NAME>_FILE` name, less the newline at their end. WrongSetting."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = variable_of(field_name)
        path = os.environ.get(variable + FILE)
        if not path:
            return None, field_name, False
        if os.environ.get(variable):
            raise WrongSetting(f"{variable} and {variable}{FILE} are both set; unset one of them.")
        try:
            return Path(path).read_text().rstrip("\r\n"), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise WrongSetting(f"{variable}{FILE} names {path}, which cannot be read: {error}") from error

    def __call__(self) -> dict[str, Any]:
        _refuse_unknown(list(self.settings_cls.model_fields))
        read = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in read.items() if value is not None}


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
    hub_endpoint: str = Field(
        "https://huggingface.co", description="Where teachers and datasets called hf://… are; may be a mirror."
    )
    hub_token: SecretStr = Field(
        SecretStr(""), description="Token for gated repositories of the hub; empty means none."
    )
    max_body_bytes: int = Field(1_000_000, ge=1_000, description="Larger request bodies are refused.")
    reconcile_interval: float = Field(0.5, gt=0, description="Seconds between looks at the cluster.")
    reconcile_in_process: bool = Field(True, description="Run the reconciler inside the API process.")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of /metrics of a reconciler that runs apart; 0 means none."
    )
    device_memory_gib: float = Field(
        0, ge=0, description="Memory of a worker's device, by which validation says what will not fit; 0: not known."
    )
    device_tflops: float = Field(
        0,
        ge=0,
        description="TFLOP/s that a worker's device keeps up in training, about a third of its peak; 0: not known.",
    )
    max_running: int = Field(2, ge=1, description="Jobs on the cluster at once.")
    reserve_after: float = Field(
        600, ge=0, description="Seconds that a job waits before nothing of its priority or below overtakes it."
    )
    preemption: bool = Field(True, description="Let a job take the place of running ones of lower priority.")
    lease_seconds: float = Field(
        15, ge=1, le=600, description="How long the work of a control-plane process that died stays undone."
    )
    max_losses: int = Field(10, ge=0, description="Attempts of one job that may be lost to dead processes or machines.")
    cancel_deadline: float = Field(60, gt=0, description="Seconds a job has to stop before it is stopped by force.")
    stall_deadline: float = Field(600, gt=0, description="Seconds without progress before an attempt is given up.")
    webhook_private_addresses: bool = Field(
        False, description="Let webhooks call private addresses; the network must then guard itself."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, Files(settings_cls), env_settings

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


def load() -> Settings:
    """The settings, or WrongSetting, which names the variables that are wrong and says why."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = [f"{variable_of(str(one['loc'][0]))}: {one['msg']}, not {one['input']!r}." for one in error.errors()]
        raise WrongSetting(" ".join(wrong)) from error


@dataclass(frozen=True)
class Shown:
    """A setting as it may be shown to anybody: without its secrets. `source`: default, environment or a file."""

    name: str
    value: str
    source: str


def shown(settings: Settings) -> Iterator[Shown]:
    """Every setting, and where it comes from. One that is empty is shown as what stands for it."""
    for name, given in settings:
        stand_in = getattr(settings, f"resolved_{name}", None)
        value = stand_in() if stand_in is not None else given
        variable = variable_of(name)
        path = os.environ.get(variable + FILE)
        source = f"file {path}" if path else f"environment {variable}" if variable in os.environ else "default"
        yield Shown(variable, redacted(value), source)


def redacted(value: object) -> str:
    """The value as text; secrets, and what in a URL may be one, are starred."""
    if isinstance(value, SecretStr):
        return "***" if value.get_secret_value() else ""
    text = re.sub(r"(://[^:@/]*:).*@", r"\1***@", str(value))
    return re.sub(r"(?i)([?&][^=&]*(?:password|passwd|secret|token|key)[^=&]*=)[^&]*", r"\1***", text)


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def _refuse_unknown(names: list[str]) -> None:
    """A misspelt variable would be ignored silently, and the default be taken for what it meant. WrongSetting."""
    variables = [variable_of(name) for name in names]
    known = {*OTHERS, *variables, *(variable + FILE for variable in variables)}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if not unknown:
        return
    near = difflib.get_close_matches(unknown[0].upper(), sorted(known), n=1)
    hint = f"did you mean {near[0]}?" if near else "`fewstep settings` lists those that there are."
    raise WrongSetting(f"{', '.join(unknown)}: no such setting; {hint} Correct it or unset it.")
