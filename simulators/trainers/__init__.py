"""Trainers of policies with memory behind one contract, and the judge of what they made."""
