"""When something is due: texts to schedules, schedules to moments, in every zone.

The one rule: time is an argument. Nothing here reads a clock or remembers a task.

Read in this order: `zones` (local time and UTC), `fields` and `rules` (cron's fields as sets
and walks), `schedule` (a text to moments), `words` and `english` (phrases), `describe` (back
to English), `timetable` (with start=, end= and spread=), `calendars` (days off), `forecast`
(what clock changes would do).
"""
