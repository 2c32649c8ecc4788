"""What is asked and how it is answered: lines to orders, state to rows.

The one rule: it looks and never changes anything, and never waits.

Read in this order: `questions`, `commands` (the verbs), `views` (rows), `tree` (DEPS),
`revisions`, `why`, `stats`, `events`.
"""
