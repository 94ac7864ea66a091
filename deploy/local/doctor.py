"""`python -m deploy.local doctor`: the sender's doctor, with what the running stack's processes are told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.local.places import ROOT
from deploy.local.ports import HOST
from deploy.local.processes import BASICS, OUTSIDE
from deploy.local.real import RealParts
from deploy.local.state import StackError, StateDir
from deploy.local.token_keys import token_keys


def run_doctor(state_dir: Path, arguments: Sequence[str], *, caller: Mapping[str, str]) -> int:
    """Return the doctor's exit status: 1 as soon as something fails. Raises: StackError if there is no stack."""
    state = StateDir(state_dir)
    stack = state.read_stack() if state.path.exists() else None
    if stack is None:
        raise StackError("Start it first: make run (in another terminal)")
    command = (sys.executable, "-m", "services.sender", "doctor", *arguments)
    environment = _environment(state, stack, RealParts.from_environment(caller), caller)
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def _environment(
    state: StateDir, stack: Mapping[str, Any], real: RealParts, caller: Mapping[str, str]
) -> dict[str, str]:
    addresses, passed = stack["addresses"], BASICS + (OUTSIDE if real.graph else ())
    sandbox = {"WHATSAPP_GRAPH_URL": f"{addresses['sandbox']}/graph/v26.0"}
    return {
        **{name: caller[name] for name in passed if name in caller},
        "PYTHONUTF8": "1",
        "DATABASE_URL": stack["database"]["logins"]["parley_service_login"],
        "STORAGE_DIR": str(state.storage_dir),
        "WHATSAPP_TOKEN_KEYS": token_keys(state, real).private,
        "WHATSAPP_APP_SECRETS": stack["webhook"]["app_secret"],
        "WHATSAPP_VERIFY_TOKEN": stack["webhook"]["verify_token"],
        "WHATSAPP_WEBHOOK_URL": addresses["webhook"] or f"http://{HOST}",
        **(real.graph or sandbox),
    }
