"""What is asked and how it is answered: lines to orders, state to rows.

The one rule: it looks and never changes anything, and never waits.

Read in this order: `questions`, `commands` (a row a verb), `parsers` and `accounts` (what each makes of its
words), `grammar` (how words are read), `manual` (HELP), `kept` (what keep= still shows), `views` (rows),
`listing`, `flows` (DEPS, too), `revisions`, `why`, `stats`, `overview`, `metrics`,
`events`.
"""
