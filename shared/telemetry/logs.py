"""One JSON object per line on standard output; the library logs of others included."""

from __future__ import annotations

import logging
import sys
import threading
from typing import TextIO

import structlog


def configure_logs(*, service: str, process: str, level: str = "info", to: TextIO | None = None) -> None:
    """Log as JSON with `service` and `process` on every line; called once, in `__main__`.

    `to`: instead of standard output, which belongs to the answer where a command gives one.

    Never logged, at any level: message text, names, phone numbers, tokens, raw payloads. Tracebacks name files and
    lines, not values.
    """

    def name_process(
        _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        # Not a context variable: threads would not inherit it.
        event.update(service=service, process=process)
        return event

    every_line: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        name_process,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]
    handler = logging.StreamHandler(to or sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=every_line,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _format_error,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for chatty in (
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "anthropic",
        "rq",
        "uvicorn",
        "uvicorn.error",
        "rq.worker",
        "rq.queue",
        "rq.job",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("psycopg.pool").addFilter(_NowAndThen())
    sys.excepthook = lambda *info: structlog.get_logger().critical("process.crashed", exc_info=info)
    threading.excepthook = lambda args: structlog.get_logger().critical(
        "thread.crashed", exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
    )
    structlog.configure(
        processors=[*every_line, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=True,
    )


class _NowAndThen(logging.Filter):
    """Lets one line a minute through: psycopg's pool says at each try that a database is out."""

    def __init__(self) -> None:
        super().__init__()
        self._silent_until = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether this line is written."""
        is_due = record.created >= self._silent_until
        if is_due:
            self._silent_until = record.created + 60
        return is_due


def _format_error(
    _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Replace an exception by its classes and places: messages of foreign errors may quote personal data."""
    # Libraries put more into a line than its first: tracebacks, a task's repr with its exception's text.
    event["event"] = str(event["event"]).partition("\n")[0]
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        chain: list[dict[str, object]] = []
        waiting: list[BaseException] = [error]
        while waiting and len(chain) < 5:
            seen = waiting.pop(0)
            places = []
            trace = seen.__traceback__
            while trace is not None:
                code = trace.tb_frame.f_code
                places.append(f"{code.co_filename.rsplit('/site-packages/', 1)[-1]}:{trace.tb_lineno} {code.co_name}")
                trace = trace.tb_next
            chain.append({"error": type(seen).__name__, "at": places[-12:]})
            waiting += seen.exceptions if isinstance(seen, BaseExceptionGroup) else ()
            waiting += [cause] if (cause := seen.__cause__ or seen.__context__) else []
        event["errors"] = chain
    return event
