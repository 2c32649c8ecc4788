"""The programs a person starts: arguments in, exit codes out.

The one rule: what can be wrong is said in one line that names it.

Read in this order: `cli` (every subcommand), `client` (those that speak to a daemon), `verbs` (any
verb), `completion` (for shells).
"""
