"""Secure aggregation: the server learns the noised sum of all sites and nothing else about any of them.

============= ===========================================================================================
module        what it holds
============= ===========================================================================================
terms         what all sites and the server agreed on before anything was sent, and its digest
wire          the messages, their one byte form and their limits
shamir        secrets in shares, over the field of 2^255 - 19
graph         who shares a mask with whom, and the bound that says how many are enough
masks         keys of a turn from the secret of a pair, their expansion, and small sealed boxes
protocol      what both ends check and sign: members, transcripts, survivor sets
dealing       a site's secrets for one turn, shared out and committed to
opening       what the server does with opened shares
site          the site's end, a pure state machine
server        the server's end, likewise
plain         the same sums without the cryptography that cancels, for simulations
fixed_point   floats to integers on a grid, with the sensitivity that is accounted and the headroom proof
skellam       Skellam numbers from a key stream, by table
noise_shares  how much noise each site adds, so that enough is left when sites drop out or collude
============= ===========================================================================================

No module does I/O, reads a clock or imports torch. The page a stranger should read is docs/spec/secagg.md.
Nothing is imported here, so that naming this package costs nothing.
"""
