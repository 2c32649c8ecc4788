"""`make bench`: what things cost, beside peers in the same run; printed, never judged."""

from __future__ import annotations

from tests import bench_daemon, bench_schedules

if __name__ == "__main__":
    bench_schedules.main()
    bench_daemon.main()
