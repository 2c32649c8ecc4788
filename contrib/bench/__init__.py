"""`make bench`: what things cost, beside real peers in the same run; printed, never judged.

Machines are shared and noisy, so no figure stands alone: rounds alternate (ours, theirs, ours,
theirs …), medians count, and beside each stands what the peer took meanwhile. A peer that is
missing is named. Nothing here is a limit in a test.

In reading order: measure (rounds, medians, the table), processes (servers of a run, and what
/proc tells of them), load (clients made of lines), ours (a daemon, its worker, and what is
measured of them), redis, bullmq, beanstalkd, apscheduler_peer and schedules (the peers), and
rows, which is the list of all that is measured and what we aim at.
"""
