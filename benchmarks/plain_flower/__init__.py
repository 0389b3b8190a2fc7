"""The app a person would write today with Flower and Opacus alone: what fedgen is measured beside.

It follows the official examples: three files, a new ``PrivacyEngine`` for every message, the PRV accountant, ε
reported each round, Ray as the simulator. It is deliberately not tuned, and has the known faults of that shape:
its ε is the cost of one round and never composes, Adam's moments are lost between rounds, and the noise comes
from a generator that is not secure.
"""
