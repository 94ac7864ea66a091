"""The timeouts that lean on each other, in one table; a test checks the inequalities.

Seconds throughout. Why each: docs of the data model's section 6, in the comments here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clocks:
    """Defaults in seconds; `problems` says which inequality a choice breaks."""

    # Redis: an append that takes longer is answered from Postgres; a blocking read must end before its socket does.
    redis_append_timeout_s: float = 0.5
    redis_read_timeout_s: float = 5.0
    redis_block_s: float = 2.0
    redis_hint_timeout_s: float = 0.25  # for what is better left out than waited for

    # Recorder.
    batch_deadline_s: float = 5.0
    pending_idle_s: float = 15.0  # a stream entry unacknowledged this long is taken over by another recorder
    drain_every_s: float = 2.0  # bodies that went to Postgres while Redis was out
    drain_hold_s: float = 30.0
    housekeeping_every_s: float = 3600.0
    reroute_every_s: float = 60.0  # what went nowhere is looked at this often: its number may be connected now

    # Work rows.
    poll_every_s: float = 5.0
    lease_s: float = 20.0
    renew_every_s: float = 5.0
    settle_s: float = 1.0  # a burst of messages is one analysis
    promised_s: float = 60.0  # no work waits longer after a crash

    # Claude.
    claude_timeout_s: float = 45.0
    analysis_deadline_s: float = 90.0

    # Sending. A call ends within send_timeout_s, and none begins later than that before its lease ends.
    send_connect_timeout_s: float = 4.0  # the part of it in which nothing has left yet
    send_timeout_s: float = 10.0
    tend_every_s: float = 1.0  # what waited is due, who died left something in doubt
    # Meta's usual delay of a status is seconds; one that is ten times later than ever seen must still settle it.
    doubt_grace_s: float = 300.0

    chore_deadline_s: float = 120.0  # one file of 100 MB over a slow line; its lease is renewed meanwhile

    # Shutdown: 2 s unready + 20 s drain + 2 s flush = 24 s < the orchestrator's 30 s.
    unready_s: float = 2.0
    drain_s: float = 20.0
    flush_s: float = 2.0
    orchestrator_s: float = 30.0

    def problems(self) -> list[str]:
        """Return what is wrong, each with its consequence; empty when all hold."""
        rules = (
            (
                self.redis_block_s < self.redis_read_timeout_s,
                "redis_block_s must be under redis_read_timeout_s, or every idle read is an error",
            ),
            (
                self.batch_deadline_s < self.pending_idle_s,
                "batch_deadline_s must be under pending_idle_s, or two recorders work on one entry",
            ),
            (
                self.batch_deadline_s < self.drain_hold_s,
                "batch_deadline_s must be under drain_hold_s, or two recorders drain one body",
            ),
            (
                self.renew_every_s * 2 < self.lease_s,
                "lease_s must outlast two renewals, or one slow renewal loses the lease",
            ),
            (
                self.lease_s + self.poll_every_s + self.settle_s + self.pending_idle_s < self.promised_s,
                "lease, poll, settle and takeover must fit the promised time, or a crash costs more than promised",
            ),
            (
                self.send_connect_timeout_s < self.send_timeout_s,
                "send_connect_timeout_s must be under send_timeout_s, or what was never sent counts as in doubt",
            ),
            (
                self.send_timeout_s < self.lease_s,
                "lease_s must exceed send_timeout_s, or a slow send is sent twice",
            ),
            (
                self.send_timeout_s < self.drain_s,
                "send_timeout_s must be under drain_s, or a shutdown leaves sends in doubt",
            ),
            (
                self.lease_s + self.poll_every_s + self.tend_every_s < self.doubt_grace_s,
                "doubt_grace_s must outlast a lease, or what a dead dispatcher sent is judged before its status comes",
            ),
            (self.claude_timeout_s < self.analysis_deadline_s, "claude_timeout_s must be under analysis_deadline_s"),
            (
                self.unready_s + self.drain_s + self.flush_s < self.orchestrator_s,
                "shutdown must end before the orchestrator kills, or work in flight is cut off",
            ),
        )
        return [message for holds, message in rules if not holds]
