"""The privacy core: events, accountant, calibration, plan, budget and the sentences about them.

What was done (an event) and what it costs (a bound) are two things. An event is recorded once, in a ledger,
and anyone can compute its cost again, later, with another accountant.

Nothing here imports torch, and dp_accounting (seconds of start-up) is imported only when a cost is asked for.
"""
