"""`python -m deploy.sandbox`: read the environment, serve until told to stop."""

from __future__ import annotations

import sys

import uvicorn

from deploy.sandbox.app import build_app
from deploy.sandbox.logs import log, quiet_libraries
from deploy.sandbox.settings import UnusableSettings, read_settings
from deploy.sandbox.story import read_story


def main() -> int:
    """Run the sandbox. Returns: the exit status, 2 when the environment is not usable."""
    quiet_libraries()
    try:
        settings = read_settings()
        story = read_story(settings.story_path)
    except UnusableSettings as error:
        log("sandbox.refused_to_start", "error", reason=str(error))
        return 2
    uvicorn.run(
        build_app(settings, story),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        # Whoever waits for a slow answer is cut off after this, so SIGTERM takes less than two seconds.
        timeout_graceful_shutdown=1,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
