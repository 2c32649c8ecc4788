"""What every other folder may lean on: errors, names, text on the wire, replies.

The one rule: it imports nothing of ours, and knows no task, schedule, socket or clock.

Read in this order: `errors` (a refusal, and an exit), `text` (escapes, options, times), `names`
(what things may be called), `addresses` (where requests may go), `replies` (what a client reads
back), `output` (what a run wrote), `masks` (what must not be shown of it), `proofs` (who has a token,
and whose an order is), `nearest` (what was probably meant), `histograms`, `walks` (a million rows, a slice at
a time).
"""
